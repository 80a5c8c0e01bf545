//! Expressions of the launch geometry: whole numbers over constants and launch sizes.
//!
//! Invariant: a formula that was read has nothing but what a launch can work out without
//! allocating; with its constants put in, working it out looks nothing up by name.

mod steps;

use std::collections::BTreeSet;

use tera::ast::{Expr, ExprVal, LogicOperator, MathOperator};

use crate::engine::request::constant::Value;

pub(crate) use steps::Quick;

/// An expression, as the TOML has it and as it is worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Formula {
    /// As the TOML has it.
    pub text: String,
    pub(crate) term: Term,
}

/// A part of an expression. What is true is 1, what is false 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Term {
    Number(i128),
    Text(String),
    /// A constant, or an item of one that is a list.
    Name(String, Option<usize>),
    /// A launch size, by its place.
    Size(usize),
    Not(Box<Term>),
    Two(Operator, Box<Term>, Box<Term>),
    /// The second where the first holds, else the third.
    Pick(Box<[Term; 3]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Sub,
    Mul,
    /// Without a rest.
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
}

use Operator::{
    Add, And, CeilDiv, Div, Equal, Less, LessOrEqual, Max, Min, Mul, NotEqual, Or, Rem, RoundUp, Sub,
};

impl std::fmt::Display for Formula {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Term {
    /// Takes a parsed expression over; `sizes` are the launch sizes' names, in order.
    pub(crate) fn new(expr: &Expr, sizes: &[String]) -> Result<Self, String> {
        if !expr.filters.is_empty() {
            return Err("has a filter, and a launch's numbers have none".into());
        }
        let two = |operator, a: &Expr, b: &Expr| {
            Ok::<_, String>(Self::Two(
                operator,
                Box::new(Self::new(a, sizes)?),
                Box::new(Self::new(b, sizes)?),
            ))
        };
        let term = match &expr.val {
            ExprVal::Int(number) => Self::Number((*number).into()),
            ExprVal::Bool(flag) => Self::Number((*flag).into()),
            ExprVal::String(text) => Self::Text(text.clone()),
            ExprVal::Ident(name) => {
                match (sizes.iter().position(|size| size == name), name.split_once('[')) {
                    (Some(size), _) => Self::Size(size),
                    (None, None) => Self::Name(name.clone(), None),
                    (None, Some((list, item))) => {
                        let item = item.strip_suffix(']').and_then(|digits| digits.parse().ok());
                        Self::Name(
                            list.to_owned(),
                            Some(item.ok_or("has an item that is not a number")?),
                        )
                    }
                }
            }
            ExprVal::Math(math) => {
                let operator = match math.operator {
                    MathOperator::Add => Add,
                    MathOperator::Sub => Sub,
                    MathOperator::Mul => Mul,
                    MathOperator::Div => Div,
                    MathOperator::Modulo => Rem,
                };
                two(operator, &math.lhs, &math.rhs)?
            }
            ExprVal::Logic(logic) => {
                let (a, b) = (&logic.lhs, &logic.rhs);
                match logic.operator {
                    LogicOperator::Gt => two(Less, b, a)?,
                    LogicOperator::Gte => two(LessOrEqual, b, a)?,
                    LogicOperator::Lt => two(Less, a, b)?,
                    LogicOperator::Lte => two(LessOrEqual, a, b)?,
                    LogicOperator::Eq => two(Equal, a, b)?,
                    LogicOperator::NotEq => two(NotEqual, a, b)?,
                    LogicOperator::And => two(And, a, b)?,
                    LogicOperator::Or => two(Or, a, b)?,
                }
            }
            ExprVal::FunctionCall(call) => {
                let argument = |name: &str| {
                    (call.args.get(name)).ok_or_else(|| format!("calls {} without `{name}`", call.name))
                };
                match call.name.as_str() {
                    "ceil_div" => two(CeilDiv, argument("a")?, argument("b")?)?,
                    "round_up" => two(RoundUp, argument("a")?, argument("b")?)?,
                    "pick" => {
                        let part = |name| Self::new(argument(name)?, sizes);
                        Self::Pick(Box::new([part("cond")?, part("a")?, part("b")?]))
                    }
                    name => {
                        let operator = if name == "max" { Max } else { Min };
                        let mut all = call.args.values().map(|arg| Self::new(arg, sizes));
                        let first = all.next().ok_or_else(|| format!("calls {name} of nothing"))??;
                        all.try_fold(first, |a, b| {
                            Ok::<_, String>(Self::Two(operator, Box::new(a), Box::new(b?)))
                        })?
                    }
                }
            }
            _ => return Err("has more than whole numbers, names, + - * / %, comparisons and calls".into()),
        };
        Ok(if expr.negated {
            Self::Not(Box::new(term))
        } else {
            term
        })
    }

    /// Adds the constants' names in it.
    pub(crate) fn names(&self, names: &mut BTreeSet<String>) {
        match self {
            Self::Name(name, _) => {
                names.insert(name.clone());
            }
            Self::Number(_) | Self::Text(_) | Self::Size(_) => {}
            Self::Not(a) => a.names(names),
            Self::Two(_, a, b) => {
                a.names(names);
                b.names(names);
            }
            Self::Pick(parts) => parts.iter().for_each(|part| part.names(names)),
        }
    }

    /// Whether a launch size is in it.
    pub(crate) fn has_size(&self) -> bool {
        match self {
            Self::Size(_) => true,
            Self::Number(_) | Self::Text(_) | Self::Name(..) => false,
            Self::Not(a) => a.has_size(),
            Self::Two(_, a, b) => a.has_size() || b.has_size(),
            Self::Pick(parts) => parts.iter().any(Self::has_size),
        }
    }

    /// The same with the constants' values in the place of their names, worked out as far as
    /// that goes; the text says what is wrong.
    pub(crate) fn with<'v>(&self, value: &dyn Fn(&str) -> Option<Named<'v>>) -> Result<Self, String> {
        let folded = match self {
            Self::Name(name, item) => return put_in(name, *item, value),
            Self::Number(_) | Self::Text(_) | Self::Size(_) => return Ok(self.clone()),
            Self::Not(a) => Self::Not(Box::new(a.with(value)?)),
            Self::Two(operator, a, b) => {
                let (a, b) = (a.with(value)?, b.with(value)?);
                match (operator, &a, &b) {
                    (Equal, Self::Text(a), Self::Text(b)) => Self::Number((a == b).into()),
                    (NotEqual, Self::Text(a), Self::Text(b)) => Self::Number((a != b).into()),
                    (_, Self::Text(text), _) | (_, _, Self::Text(text)) => {
                        return Err(format!("`{text}` is not a number"));
                    }
                    _ => Self::Two(*operator, Box::new(a), Box::new(b)),
                }
            }
            Self::Pick(parts) => {
                let [cond, a, b] = &**parts;
                Self::Pick(Box::new([cond.with(value)?, a.with(value)?, b.with(value)?]))
            }
        };
        if folded.has_size() {
            return Ok(folded);
        }
        let number = folded.at(&[]).map(Self::Number);
        number.ok_or_else(|| "does not come out as a whole number".into())
    }

    /// Whether it comes out as true for no launch sizes, as far as its numbers tell.
    pub(crate) fn never_holds(&self) -> bool {
        match self {
            Self::Number(number) => *number == 0,
            Self::Two(And, a, b) => a.never_holds() || b.never_holds(),
            Self::Two(Or, a, b) => a.never_holds() && b.never_holds(),
            _ => false,
        }
    }

    /// Its value for these launch sizes; `None` where it does not come out as a whole number.
    /// Allocates nothing.
    pub(crate) fn at(&self, sizes: &[u32]) -> Option<i128> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Size(at) => sizes.get(*at).map(|size| i128::from(*size)),
            Self::Text(_) | Self::Name(..) => None,
            Self::Not(a) => Some((a.at(sizes)? == 0).into()),
            Self::Pick(parts) => {
                let [cond, a, b] = &**parts;
                if cond.at(sizes)? != 0 { a } else { b }.at(sizes)
            }
            Self::Two(operator, a, b) => operator.of(a.at(sizes)?, b.at(sizes)?),
        }
    }
}

impl Operator {
    fn of(self, a: i128, b: i128) -> Option<i128> {
        // Sizes are small, and dividing 128 bits takes several times as long.
        let rest = || match (i64::try_from(a), i64::try_from(b)) {
            (Ok(a), Ok(b)) if b > 0 => Some((a % b).into()),
            _ => a.checked_rem(b),
        };
        let quotient = || match (i64::try_from(a), i64::try_from(b)) {
            (Ok(a), Ok(b)) if b > 0 => Some((a / b).into()),
            _ => a.checked_div(b),
        };
        let up = || {
            let whole = quotient().filter(|_| a >= 0 && b > 0)?;
            whole.checked_add(i128::from(rest()? != 0))
        };
        match self {
            Add => a.checked_add(b),
            Sub => a.checked_sub(b),
            Mul => a.checked_mul(b),
            Div => (b != 0 && rest()? == 0).then(quotient)?,
            Rem => rest(),
            CeilDiv => up(),
            RoundUp => up()?.checked_mul(b),
            Max => Some(a.max(b)),
            Min => Some(a.min(b)),
            Equal => Some((a == b).into()),
            NotEqual => Some((a != b).into()),
            Less => Some((a < b).into()),
            LessOrEqual => Some((a <= b).into()),
            And => Some((a != 0 && b != 0).into()),
            Or => Some((a != 0 || b != 0).into()),
        }
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Named<'v> {
    Constant(&'v Value),
    Derived(u32),
}

fn put_in<'v>(
    name: &str,
    item: Option<usize>,
    value: &dyn Fn(&str) -> Option<Named<'v>>,
) -> Result<Term, String> {
    let found = match value(name) {
        Some(Named::Derived(number)) => return Ok(Term::Number(number.into())),
        Some(Named::Constant(found)) => found,
        None => return Err(format!("`{name}` has no value")),
    };
    let found = match (found, item) {
        (Value::List(items), Some(at)) => {
            (items.get(at)).ok_or_else(|| format!("`{name}` has no item {at}: it has {}", items.len()))?
        }
        (_, Some(_)) => return Err(format!("`{name}` is not a list")),
        (found, None) => found,
    };
    match (found.as_integer(), found) {
        (Some(number), _) => Ok(Term::Number(number)),
        (None, Value::Enum { name, .. } | Value::Type { name, .. } | Value::String(name)) => {
            Ok(Term::Text(name.clone()))
        }
        _ => Err(format!("`{name}` = {found} is not a whole number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::tera_strict::expression;

    fn term(text: &str) -> Result<Term, String> {
        let sizes = ["n".to_owned(), "m".to_owned()];
        expression(text).and_then(|expr| Term::new(&expr, &sizes))
    }

    fn at(text: &str, sizes: &[u32]) -> Option<i128> {
        let list = Value::List(vec![Value::U32(64), Value::I32(-3)]);
        let mode = Value::Enum {
            cxx_type: "M".into(),
            name: "two".into(),
        };
        let value = |name: &str| match name {
            "block" => Some(Named::Derived(128)),
            "tile" => Some(Named::Constant(&list)),
            "mode" => Some(Named::Constant(&mode)),
            _ => None,
        };
        term(text).expect(text).with(&value).expect(text).at(sizes)
    }

    #[test]
    fn a_formula_is_what_the_same_expression_is_elsewhere() {
        for (text, value) in [
            ("n * 2 + m", Some(13)),
            ("ceil_div(a=n * 100, b=block)", Some(4)),
            ("round_up(a=n, b=4)", Some(8)),
            ("max(a=n, b=m, c=block)", Some(128)),
            ("min(a=n, b=m)", Some(3)),
            ("n - m", Some(2)),
            ("n % 2", Some(1)),
            ("n / 5", Some(1)),
            ("n / 2", None),
            ("n / (m - 3)", None),
            ("m - n", Some(-2)),
            (
                "pick(cond=mode == 'two' and n >= 5, a=tile[0], b=tile[1])",
                Some(64),
            ),
            ("pick(cond=not n > m, a=1, b=tile[1])", Some(-3)),
            ("n == 5 or m != 3", Some(1)),
            ("block / 32", Some(4)),
        ] {
            assert_eq!(at(text, &[5, 3]), value, "{text}");
        }
        assert_eq!(at("n", &[]), None, "a size that is not there");
    }

    #[test]
    fn what_no_launch_can_work_out_is_refused() {
        for (text, words) in [
            ("n | int", "a filter"),
            ("n * 1.5", "more than whole numbers"),
            ("n is odd", "more than whole numbers"),
            ("ceil_div(a=n)", "calls ceil_div without `b`"),
        ] {
            let reason = term(text).expect_err(text);
            assert!(reason.contains(words), "{text}: {reason}");
        }
        let real = Value::F32(crate::engine::request::constant::NumberF32::new(0.5).expect("a number"));
        let value = |name: &str| (name == "x").then_some(Named::Constant(&real));
        for (text, words) in [
            ("x * n", "`x` = 0.5 is not a whole number"),
            ("y", "`y` has no value"),
            ("1 / 2", "does not come out"),
            ("'a' == n", "`a` is not a number"),
        ] {
            let reason = term(text).expect(text).with(&value).expect_err(text);
            assert!(reason.contains(words), "{text}: {reason}");
        }
    }
}
