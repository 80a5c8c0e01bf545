//! Tera as the language of families: expressions for constraints and derived
//! constants, `{{ name }}` for sources.
//!
//! Invariant: every name that a template or expression uses is known before it
//! is evaluated. Tera itself would take an undeclared `{% if name %}` for false.

use std::collections::{BTreeSet, HashMap};

use tera::ast::{Expr, ExprVal, Node};
use tera::{Context, Tera};

/// Collects the names that these nodes read.
pub(crate) fn names_of(nodes: &[Node]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    walk_nodes(nodes, &mut names);
    names
}

/// `None` if the template is nothing but text, comments and plain `{{ name }}`;
/// else what it has besides.
pub(crate) fn beyond_substitution(nodes: &[Node]) -> Option<&'static str> {
    nodes.iter().find_map(|node| match node {
        Node::Text(_) | Node::Comment(..) | Node::Raw(..) => None,
        Node::VariableBlock(_, expr) => {
            let plain = matches!(expr.val, ExprVal::Ident(_)) && expr.filters.is_empty() && !expr.negated;
            (!plain).then_some("an expression in {{ }}")
        }
        _ => Some("a {% %} block"),
    })
}

fn walk_nodes(nodes: &[Node], names: &mut BTreeSet<String>) {
    for node in nodes {
        match node {
            Node::VariableBlock(_, expr) => walk(expr, names),
            Node::If(branches, _) => {
                for (_, condition, body) in &branches.conditions {
                    walk(condition, names);
                    walk_nodes(body, names);
                }
                if let Some((_, body)) = &branches.otherwise {
                    walk_nodes(body, names);
                }
            }
            Node::Set(_, set) => walk(&set.value, names),
            _ => {}
        }
    }
}

fn walk(expr: &Expr, names: &mut BTreeSet<String>) {
    match &expr.val {
        ExprVal::Ident(name) => {
            names.insert(name.clone());
        }
        ExprVal::Math(math) => {
            walk(&math.lhs, names);
            walk(&math.rhs, names);
        }
        ExprVal::Logic(logic) => {
            walk(&logic.lhs, names);
            walk(&logic.rhs, names);
        }
        ExprVal::In(test) => {
            walk(&test.lhs, names);
            walk(&test.rhs, names);
        }
        ExprVal::Test(test) => {
            names.insert(test.ident.clone());
        }
        ExprVal::FunctionCall(call) => call.args.values().for_each(|arg| walk(arg, names)),
        ExprVal::Array(items) => items.iter().for_each(|item| walk(item, names)),
        _ => {}
    }
    for filter in &expr.filters {
        filter.args.values().for_each(|arg| walk(arg, names));
    }
}

/// The nodes of a template that is nothing but this condition.
pub(crate) fn condition(text: &str) -> Result<Vec<Node>, String> {
    let mut tera = Tera::default();
    let template = format!("{{% if {text} %}}1{{% endif %}}");
    tera.add_raw_template("condition", &template)
        .map_err(|e| innermost(&e))?;
    let parsed = tera.get_template("condition").map_err(|e| innermost(&e))?;
    Ok(parsed.ast.clone())
}

/// A parsed set of named expressions.
#[derive(Debug)]
pub(crate) struct Expressions(Tera);

impl Expressions {
    pub(crate) fn new() -> Self {
        let mut tera = Tera::default();
        tera.autoescape_on(Vec::new());
        tera.register_function("ceil_div", ceil_div);
        tera.register_function("round_up", round_up);
        tera.register_function("max", max);
        tera.register_function("pick", pick);
        Self(tera)
    }

    /// Parses a template under this name and gives the names that it reads.
    pub(crate) fn add(&mut self, name: &str, template: &str) -> Result<BTreeSet<String>, String> {
        self.0
            .add_raw_template(name, template)
            .map_err(|e| innermost(&e))?;
        let parsed = self.0.get_template(name).map_err(|e| innermost(&e))?;
        Ok(names_of(&parsed.ast))
    }

    /// What a parsed template has besides text and `{{ name }}`.
    pub(crate) fn beyond_substitution(&self, name: &str) -> Option<&'static str> {
        beyond_substitution(&self.0.get_template(name).ok()?.ast)
    }

    pub(crate) fn evaluate(&self, name: &str, context: &Context) -> Result<String, String> {
        self.0.render(name, context).map_err(|e| innermost(&e))
    }
}

/// Tera wraps the cause that matters in messages that only name the template.
fn innermost(error: &tera::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn ceil_div(args: &HashMap<String, tera::Value>) -> tera::Result<tera::Value> {
    let get = |name: &str| args.get(name).and_then(tera::Value::as_u64);
    match (get("a"), get("b")) {
        (Some(a), Some(b)) if b > 0 => Ok(a.div_ceil(b).into()),
        _ => Err(tera::Error::msg(
            "ceil_div(a=.., b=..) takes two whole numbers, b at least 1",
        )),
    }
}

/// `round_up(a=.., b=..)`: the least multiple of `b` that is not below `a`.
fn round_up(args: &HashMap<String, tera::Value>) -> tera::Result<tera::Value> {
    let get = |name: &str| args.get(name).and_then(tera::Value::as_u64);
    let rounded = match (get("a"), get("b")) {
        (Some(a), Some(b)) if b > 0 => a.checked_next_multiple_of(b),
        _ => None,
    };
    rounded
        .map(Into::into)
        .ok_or_else(|| tera::Error::msg("round_up(a=.., b=..) takes two whole numbers, b at least 1"))
}

/// `max(a=.., b=.., ..)`: the largest of its arguments, whatever they are called.
fn max(args: &HashMap<String, tera::Value>) -> tera::Result<tera::Value> {
    let numbers: Option<Vec<u64>> = args.values().map(tera::Value::as_u64).collect();
    let largest = numbers.and_then(|numbers| numbers.into_iter().max());
    largest
        .map(Into::into)
        .ok_or_else(|| tera::Error::msg("max(a=.., b=.., ..) takes whole numbers, at least one"))
}

/// `pick(cond=.., a=.., b=..)`: `a` where the condition holds, else `b`.
fn pick(args: &HashMap<String, tera::Value>) -> tera::Result<tera::Value> {
    match (args.get("cond"), args.get("a"), args.get("b")) {
        (Some(tera::Value::Bool(cond)), Some(a), Some(b)) => Ok(if *cond { a } else { b }.clone()),
        _ => Err(tera::Error::msg(
            "pick(cond=.., a=.., b=..) takes a condition and two values",
        )),
    }
}
