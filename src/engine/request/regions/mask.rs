//! Which blocks: a condition over a block's place, the grid and some constants.
//!
//! Invariant: what could fail is refused when the family is read. A condition that
//! exists evaluates for every block of every grid.

use std::collections::BTreeMap;

use tera::ast::{Expr, ExprVal, LogicOperator, MathOperator, Node};

use crate::engine::request::tera_strict::condition;

/// Names that every condition may read: a block's place, and blocks of the grid.
pub const PLACES: [&str; 6] = ["bx", "by", "bz", "grid_x", "grid_y", "grid_z"];

/// Where a condition is evaluated: a block of a launch.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The block: x, y, z.
    pub block: [u32; 3],
    /// Blocks of the grid: x, y, z.
    pub grid: [u32; 3],
    /// The constants that conditions read.
    pub constants: &'a BTreeMap<String, u32>,
}

/// A condition that was read: `bx == 0 and by < num_kv_heads`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    text: String,
    hashed_as: String,
    condition: Condition,
}

#[derive(Debug, Clone, PartialEq)]
enum Condition {
    Number(i64),
    Name(String),
    Not(Box<Self>),
    Logic(LogicOperator, Box<Self>, Box<Self>),
    Math(MathOperator, Box<Self>, Box<Self>),
}

impl Mask {
    /// Reads a condition; else one line on what it cannot be. `hashed_as` stands for it
    /// in a table's identity; without one, its text does.
    pub(super) fn parse(text: &str, hashed_as: Option<&str>) -> Result<Self, String> {
        let condition = match condition(text)?.as_slice() {
            [Node::If(branches, _)] if branches.conditions.len() == 1 => read(&branches.conditions[0].1)?,
            _ => return Err("is more than one condition".to_owned()),
        };
        Ok(Self {
            text: text.to_owned(),
            hashed_as: hashed_as.map_or_else(|| format!("{text:?}"), str::to_owned),
            condition,
        })
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn hashed_as(&self) -> &str {
        &self.hashed_as
    }

    /// Whether it holds for a block. A constant that the launch does not have counts as 0:
    /// whoever makes a launch checks them before.
    #[must_use]
    pub fn holds(&self, place: &Place<'_>) -> bool {
        self.condition.value(place) != 0
    }

    /// The names that it reads besides [`PLACES`], in the order of its text, once.
    pub(super) fn constants(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.condition.names(&mut names);
        names.retain(|name| !PLACES.contains(name));
        names
    }

    /// Every name that it reads, in the order of its text, once.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.condition.names(&mut names);
        names
    }
}

impl Condition {
    fn value(&self, place: &Place<'_>) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Name(name) => {
                let [bx, by, bz] = place.block;
                let [grid_x, grid_y, grid_z] = place.grid;
                let number = match name.as_str() {
                    "bx" => bx,
                    "by" => by,
                    "bz" => bz,
                    "grid_x" => grid_x,
                    "grid_y" => grid_y,
                    "grid_z" => grid_z,
                    constant => place.constants.get(constant).copied().unwrap_or(0),
                };
                i64::from(number)
            }
            Self::Not(inner) => i64::from(inner.value(place) == 0),
            Self::Logic(operator, a, b) => {
                let (a, b) = (a.value(place), b.value(place));
                i64::from(match operator {
                    LogicOperator::Gt => a > b,
                    LogicOperator::Gte => a >= b,
                    LogicOperator::Lt => a < b,
                    LogicOperator::Lte => a <= b,
                    LogicOperator::Eq => a == b,
                    LogicOperator::NotEq => a != b,
                    LogicOperator::And => a != 0 && b != 0,
                    LogicOperator::Or => a != 0 || b != 0,
                })
            }
            Self::Math(operator, a, b) => {
                let (a, b) = (a.value(place), b.value(place));
                match operator {
                    MathOperator::Add => a.saturating_add(b),
                    MathOperator::Sub => a.saturating_sub(b),
                    MathOperator::Mul => a.saturating_mul(b),
                    MathOperator::Div => a / b,
                    MathOperator::Modulo => a % b,
                }
            }
        }
    }

    fn names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Number(_) => {}
            Self::Name(name) => {
                if !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
            Self::Not(inner) => inner.names(names),
            Self::Logic(_, a, b) | Self::Math(_, a, b) => {
                a.names(names);
                b.names(names);
            }
        }
    }
}

fn read(expr: &Expr) -> Result<Condition, String> {
    if !expr.filters.is_empty() {
        return Err("has a filter: expected numbers, names, comparisons, and, or, not".to_owned());
    }
    let condition = match &expr.val {
        ExprVal::Int(number) => Condition::Number(*number),
        ExprVal::Bool(flag) => Condition::Number(i64::from(*flag)),
        ExprVal::Ident(name) => Condition::Name(name.clone()),
        ExprVal::Logic(logic) => Condition::Logic(
            logic.operator,
            Box::new(read(&logic.lhs)?),
            Box::new(read(&logic.rhs)?),
        ),
        ExprVal::Math(math) => {
            let divides = matches!(math.operator, MathOperator::Div | MathOperator::Modulo);
            if divides && !matches!(math.rhs.val, ExprVal::Int(1..)) {
                return Err("divides by something other than a number, 1 at least".to_owned());
            }
            Condition::Math(
                math.operator,
                Box::new(read(&math.lhs)?),
                Box::new(read(&math.rhs)?),
            )
        }
        _ => return Err("is not a condition: expected numbers, names, comparisons, and, or, not".to_owned()),
    };
    Ok(if expr.negated {
        Condition::Not(Box::new(condition))
    } else {
        condition
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, block: [u32; 3]) -> bool {
        let constants = BTreeMap::from([("heads".to_owned(), 4)]);
        let place = Place {
            block,
            grid: [8, 6, 2],
            constants: &constants,
        };
        Mask::parse(text, None).expect("a condition").holds(&place)
    }

    #[test]
    fn a_condition_is_read_as_tera_reads_it() {
        assert!(holds("bx == 0 and by < heads", [0, 3, 1]));
        assert!(!holds("bx == 0 and by < heads", [0, 4, 1]));
        assert!(holds("0 < bx and bx < heads or bz == 1", [7, 0, 1]));
        assert!(!holds("not bx == 1", [1, 0, 0]));
        assert!(holds("(bx + by * grid_x) % 2 == 1", [1, 2, 0]));
        assert!(holds("bx - by < 0", [1, 2, 0]));
        assert!(holds("bx == grid_x - 1 and by / 2 == 1", [7, 3, 0]));
    }

    #[test]
    fn what_could_fail_for_some_block_is_refused_when_it_is_read() {
        for (text, words) in [
            ("bx / by == 1", "divides by something other than a number"),
            ("bx % 0 == 1", "divides by something other than a number"),
            ("bx | abs == 1", "has a filter"),
            ("name == 'x'", "is not a condition"),
            ("bx == 0 %}{% endif %}{% if by", "is more than one condition"),
            ("bx ==", "expected"),
        ] {
            let reason = Mask::parse(text, None).expect_err(text);
            assert!(reason.contains(words), "{text}: {reason}");
        }
    }
}
