//! A term as a list of steps over 64 bits: what is worked out at every selection.
//!
//! Invariant: where the steps come to a number it is the term's own; where they do not,
//! because something overflows, is no whole number or is too long, the term is asked.

use super::{
    Add, And, CeilDiv, Div, Equal, Less, LessOrEqual, Max, Min, Mul, NotEqual, Operator, Or, Rem, RoundUp,
    Sub, Term,
};

/// The most steps of a list.
const MAX_STEPS: usize = 16;

/// A term, worked out quickly.
#[derive(Debug)]
pub(crate) struct Quick {
    term: Term,
    /// `None` of one that is too long, or has no numbers.
    steps: Option<Steps>,
}

#[derive(Debug)]
struct Steps {
    steps: Box<[Step]>,
    result: Operand,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Two(Operator, Operand, Operand),
    Pick([Operand; 3]),
}

#[derive(Debug, Clone, Copy)]
enum Operand {
    Number(i64),
    /// A launch size, by its place.
    Size(usize),
    /// What an earlier step came to.
    Step(usize),
}

impl Quick {
    pub(crate) fn new(term: Term) -> Self {
        let mut steps = Vec::new();
        let result = list(&term, &mut steps).filter(|_| steps.len() <= MAX_STEPS);
        let steps = result.map(|result| Steps {
            steps: steps.into(),
            result,
        });
        Self { term, steps }
    }

    pub(crate) fn term(&self) -> &Term {
        &self.term
    }

    /// As [`Term::at`]. Allocates nothing.
    #[inline]
    pub(crate) fn at(&self, sizes: &[u32]) -> Option<i128> {
        match self.steps.as_ref().and_then(|steps| steps.at(sizes)) {
            Some(number) => Some(number.into()),
            None => self.term.at(sizes),
        }
    }
}

/// Appends the steps of a term; what it comes to.
fn list(term: &Term, steps: &mut Vec<Step>) -> Option<Operand> {
    let step = match term {
        Term::Number(number) => return i64::try_from(*number).ok().map(Operand::Number),
        Term::Size(at) => return Some(Operand::Size(*at)),
        Term::Text(_) | Term::Name(..) => return None,
        Term::Not(a) => Step::Two(Equal, list(a, steps)?, Operand::Number(0)),
        Term::Two(operator, a, b) => Step::Two(*operator, list(a, steps)?, list(b, steps)?),
        Term::Pick(parts) => {
            let [cond, a, b] = &**parts;
            Step::Pick([list(cond, steps)?, list(a, steps)?, list(b, steps)?])
        }
    };
    steps.push(step);
    Some(Operand::Step(steps.len() - 1))
}

impl Steps {
    #[inline]
    fn at(&self, sizes: &[u32]) -> Option<i64> {
        let mut done = [0_i64; MAX_STEPS];
        let value = |operand: Operand, done: &[i64; MAX_STEPS]| match operand {
            Operand::Number(number) => Some(number),
            Operand::Size(at) => sizes.get(at).map(|size| i64::from(*size)),
            Operand::Step(at) => done.get(at).copied(),
        };
        for (at, step) in self.steps.iter().enumerate() {
            let number = match step {
                Step::Two(operator, a, b) => operator.quickly(value(*a, &done)?, value(*b, &done)?)?,
                Step::Pick([cond, a, b]) => {
                    let (a, b) = (value(*a, &done)?, value(*b, &done)?);
                    if value(*cond, &done)? != 0 { a } else { b }
                }
            };
            *done.get_mut(at)? = number;
        }
        value(self.result, &done)
    }
}

impl Operator {
    /// As [`Operator::of`], of what most numbers are.
    #[inline]
    fn quickly(self, a: i64, b: i64) -> Option<i64> {
        let positive = || (a >= 0 && b > 0).then_some(());
        // Sizes are of 32 bits, and dividing these takes half as long.
        let divided = || match (u32::try_from(a), u32::try_from(b)) {
            (Ok(a), Ok(b)) => (i64::from(a / b), i64::from(a % b)),
            _ => (a / b, a % b),
        };
        Some(match self {
            Add => a.checked_add(b)?,
            Sub => a.checked_sub(b)?,
            Mul => a.checked_mul(b)?,
            Rem => {
                positive()?;
                if b & (b - 1) == 0 {
                    a & (b - 1)
                } else {
                    divided().1
                }
            }
            Div => {
                positive()?;
                let (whole, rest) = divided();
                (rest == 0).then_some(whole)?
            }
            CeilDiv | RoundUp => {
                positive()?;
                let (whole, rest) = divided();
                let up = whole + i64::from(rest != 0);
                if self == RoundUp { up.checked_mul(b)? } else { up }
            }
            Max => a.max(b),
            Min => a.min(b),
            Equal => (a == b).into(),
            NotEqual => (a != b).into(),
            Less => (a < b).into(),
            LessOrEqual => (a <= b).into(),
            And => (a != 0 && b != 0).into(),
            Or => (a != 0 || b != 0).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn term() -> impl Strategy<Value = Term> {
        let number = prop_oneof![
            any::<i8>().prop_map(i128::from),
            any::<u32>().prop_map(i128::from),
            any::<i128>(),
        ];
        let leaf = prop_oneof![number.prop_map(Term::Number), (0_usize..3).prop_map(Term::Size)];
        let operators = [
            Add,
            Sub,
            Mul,
            Div,
            Rem,
            CeilDiv,
            RoundUp,
            Max,
            Min,
            Equal,
            NotEqual,
            Less,
            LessOrEqual,
            And,
            Or,
        ];
        leaf.prop_recursive(5, 40, 3, move |inner| {
            let operator = proptest::sample::select(operators.to_vec());
            prop_oneof![
                inner.clone().prop_map(|a| Term::Not(Box::new(a))),
                (operator, inner.clone(), inner.clone()).prop_map(|(operator, a, b)| Term::Two(
                    operator,
                    Box::new(a),
                    Box::new(b)
                )),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(cond, a, b)| Term::Pick(Box::new([cond, a, b]))),
            ]
        })
    }

    proptest! {
        #[test]
        fn steps_come_to_what_the_term_comes_to(term in term(), sizes in prop::array::uniform2(any::<u32>())) {
            let quick = Quick::new(term.clone());
            for sizes in [sizes, [0, 1], [u32::MAX, 7]] {
                prop_assert_eq!(quick.at(&sizes), term.at(&sizes));
            }
        }
    }
}
