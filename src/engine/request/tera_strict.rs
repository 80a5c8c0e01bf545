//! Tera as the language of families: expressions for constraints and derived
//! constants, `{{ name }}` for sources.
//!
//! Invariant: every name that a template or expression uses is known before it
//! is evaluated. Tera itself would take an undeclared `{% if name %}` for false.
//! And an expression is one: it ends, soon, and depends on its names alone. What Tera has
//! besides (loops, includes, the environment, the clock) is refused when it is read.

mod bounds;

use std::collections::{BTreeSet, HashMap};

use tera::ast::{Expr, ExprVal, LogicOperator, Node};
use tera::{Context, Tera};

/// Functions that an expression may call.
const FUNCTIONS: [&str; 5] = ["ceil_div", "max", "min", "pick", "round_up"];
/// Filters that it may use: of numbers.
const FILTERS: [&str; 3] = ["abs", "int", "round"];
/// Tests that it may make.
const TESTS: [&str; 6] = [
    "containing",
    "divisibleby",
    "ending_with",
    "even",
    "odd",
    "starting_with",
];

/// Collects the names that these nodes read.
pub(crate) fn names_of(nodes: &[Node]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    walk_nodes(nodes, &mut names);
    names
}

/// The names that an expression reads.
pub(crate) fn names_in(expr: &Expr) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    walk(expr, &mut names);
    names
}

/// `None` if the template is nothing but text, comments and plain `{{ name }}`;
/// else what it has besides.
pub(crate) fn beyond_substitution(nodes: &[Node]) -> Option<&'static str> {
    nodes.iter().find_map(|node| match node {
        Node::Text(_) | Node::Comment(..) | Node::Raw(..) => None,
        Node::VariableBlock(_, expr) => {
            let plain = |name: &str| !name.contains(['.', '[']);
            let plain = matches!(&expr.val, ExprVal::Ident(name) if plain(name));
            let plain = plain && expr.filters.is_empty() && !expr.negated;
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
    walk_value(&expr.val, names);
    for filter in &expr.filters {
        filter.args.values().for_each(|arg| walk(arg, names));
    }
}

fn walk_value(value: &ExprVal, names: &mut BTreeSet<String>) {
    match value {
        ExprVal::Ident(name) => {
            names.insert(list_of(name).unwrap_or(name).to_owned());
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
            test.args.iter().for_each(|arg| walk(arg, names));
        }
        ExprVal::FunctionCall(call) => call.args.values().for_each(|arg| walk(arg, names)),
        ExprVal::Array(items) => items.iter().for_each(|item| walk(item, names)),
        ExprVal::StringConcat(concat) => concat.values.iter().for_each(|value| walk_value(value, names)),
        ExprVal::String(_)
        | ExprVal::Int(_)
        | ExprVal::Float(_)
        | ExprVal::Bool(_)
        | ExprVal::MacroCall(_) => {}
    }
}

/// The list whose item a name is: of `tile[0]`, `tile`.
fn list_of(name: &str) -> Option<&str> {
    let (list, at) = name.strip_suffix(']')?.split_once('[')?;
    at.bytes().all(|digit| digit.is_ascii_digit()).then_some(list)
}

/// What these nodes have that an expression does not.
fn beyond_expression(nodes: &[Node]) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(_) | Node::Comment(..) => {}
            Node::VariableBlock(_, expr) => strict(expr)?,
            Node::If(branches, _) => {
                for (_, condition, body) in &branches.conditions {
                    strict(condition)?;
                    beyond_expression(body)?;
                }
                if let Some((_, body)) = &branches.otherwise {
                    beyond_expression(body)?;
                }
            }
            other => {
                let block = match other {
                    Node::Forloop(..) => "for",
                    Node::Include(..) => "include",
                    Node::ImportMacro(..) => "import",
                    Node::MacroDefinition(..) => "macro",
                    Node::Extends(..) => "extends",
                    Node::Block(..) | Node::Super => "block",
                    Node::Set(..) => "set",
                    Node::FilterSection(..) => "filter",
                    Node::Raw(..) => "raw",
                    _ => "loop",
                };
                return Err(format!(
                    "has {{% {block} %}}: an expression has {{{{ }}}} and {{% if %}} alone"
                ));
            }
        }
    }
    Ok(())
}

fn strict(expr: &Expr) -> Result<(), String> {
    let known = |what: &str, name: &str, known: &[&str]| {
        if known.contains(&name) {
            return Ok(());
        }
        Err(format!("has no {what} `{name}`: there are {}", known.join(", ")))
    };
    for filter in &expr.filters {
        known("filter", &filter.name, &FILTERS)?;
        filter.args.values().try_for_each(strict)?;
    }
    match &expr.val {
        ExprVal::Math(math) => strict(&math.lhs).and_then(|()| strict(&math.rhs)),
        ExprVal::Logic(logic) => strict(&logic.lhs).and_then(|()| strict(&logic.rhs)),
        ExprVal::In(test) => strict(&test.lhs).and_then(|()| strict(&test.rhs)),
        ExprVal::Test(test) => {
            known("test", &test.name, &TESTS)?;
            test.args.iter().try_for_each(strict)
        }
        ExprVal::FunctionCall(call) => {
            known("function", &call.name, &FUNCTIONS)?;
            call.args.values().try_for_each(strict)
        }
        ExprVal::Array(items) => items.iter().try_for_each(strict),
        ExprVal::StringConcat(concat) => concat.values.iter().try_for_each(|value| match value {
            ExprVal::FunctionCall(call) => known("function", &call.name, &FUNCTIONS),
            _ => Ok(()),
        }),
        ExprVal::MacroCall(call) => Err(format!("calls a macro, `{}`, and there are none", call.name)),
        ExprVal::String(_) | ExprVal::Int(_) | ExprVal::Float(_) | ExprVal::Bool(_) | ExprVal::Ident(_) => {
            Ok(())
        }
    }
}

/// The nodes of a template that is nothing but this condition.
pub(crate) fn condition(text: &str) -> Result<Vec<Node>, String> {
    let template = Body::Rule(text).template()?;
    let mut tera = Tera::default();
    tera.add_raw_template("condition", &template)
        .map_err(|e| innermost(&e))?;
    let parsed = tera.get_template("condition").map_err(|e| innermost(&e))?;
    Ok(parsed.ast.clone())
}

/// The expression that a text is, and nothing else.
pub(crate) fn expression(text: &str) -> Result<Expr, String> {
    if text.contains("{%") {
        return Err("is more than one expression: it has `{%`".into());
    }
    let mut tera = Tera::default();
    tera.add_raw_template("expression", &Body::Value(text).template()?)
        .map_err(|e| innermost(&e))?;
    let parsed = tera.get_template("expression").map_err(|e| innermost(&e))?;
    match parsed.ast.as_slice() {
        [Node::VariableBlock(_, expr)] => {
            strict(expr)?;
            Ok(expr.clone())
        }
        _ => Err("is not an expression".into()),
    }
}

/// What a family's files say in Tera.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    /// An expression; or, if it has `{%`, a template of branches, each an expression.
    Value(&'a str),
    /// A condition, which renders as `1` or `0`.
    Rule(&'a str),
    /// A kernel's source.
    Source(&'a str),
}

impl Body<'_> {
    /// The template that Tera parses, of which that much is known: parsing it neither
    /// overflows the stack nor takes long.
    fn template(self) -> Result<String, String> {
        let ends = |text: &str| {
            bounds::DELIMITERS
                .into_iter()
                .find(|delimiter| text.contains(delimiter))
        };
        let template = match self {
            Self::Rule(text) => match ends(text) {
                Some(delimiter) => return Err(format!("is more than one condition: `{delimiter}` ends it")),
                None => format!("{{% if {text} %}}1{{% else %}}0{{% endif %}}"),
            },
            Self::Value(text) if text.contains("{%") => text.to_owned(),
            Self::Value(text) => match ends(text) {
                Some(delimiter) => return Err(format!("is more than one expression: `{delimiter}` ends it")),
                None => format!("{{{{ {text} }}}}"),
            },
            Self::Source(text) => text.to_owned(),
        };
        if !matches!(self, Self::Source(_)) && template.len() > bounds::MAX_LENGTH {
            return Err(format!("has more than {} characters", bounds::MAX_LENGTH));
        }
        bounds::check(&template)?;
        Ok(template)
    }
}

/// A text as a message quotes it: not all of it, if it is long.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A parsed set of named expressions.
#[derive(Debug)]
pub(crate) struct Expressions(Tera);

/// More than any honest family has; Tera looks at all of them whenever one is added.
const MAX_EXPRESSIONS: usize = 1000;

impl Expressions {
    pub(crate) fn new() -> Self {
        let mut tera = Tera::default();
        tera.autoescape_on(Vec::new());
        tera.register_function("ceil_div", ceil_div);
        tera.register_function("round_up", round_up);
        tera.register_function("max", max);
        tera.register_function("min", min);
        tera.register_function("pick", pick);
        Self(tera)
    }

    /// Parses a body under this name and gives the names that it reads.
    pub(crate) fn add(&mut self, name: &str, body: Body<'_>) -> Result<BTreeSet<String>, String> {
        if self.0.get_template_names().count() >= MAX_EXPRESSIONS {
            return Err(format!(
                "is one expression too many: at most {MAX_EXPRESSIONS} in a family"
            ));
        }
        self.0
            .add_raw_template(name, &body.template()?)
            .map_err(|e| innermost(&e))?;
        let parsed = self.0.get_template(name).map_err(|e| innermost(&e))?;
        if !matches!(body, Body::Source(_)) {
            beyond_expression(&parsed.ast)?;
        }
        Ok(names_of(&parsed.ast))
    }

    /// The names that one of them reads.
    pub(crate) fn names_of(&self, name: &str) -> BTreeSet<String> {
        let parsed = self.0.get_template(name);
        parsed.map_or_else(|_| BTreeSet::new(), |template| names_of(&template.ast))
    }

    /// Every name that any of them reads.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let templates = self
            .0
            .get_template_names()
            .filter_map(|name| self.0.get_template(name).ok());
        templates.flat_map(|template| names_of(&template.ast)).collect()
    }

    /// Whether a rule comes out as true or false by itself, and not by what Tera takes for
    /// true; `is_bool` knows the constants that do.
    pub(crate) fn is_condition(&self, name: &str, is_bool: &dyn Fn(&str) -> bool) -> bool {
        let parsed = self.0.get_template(name).map(|template| template.ast.as_slice());
        match parsed {
            Ok([Node::If(branches, _)]) => {
                (branches.conditions.first()).is_some_and(|(_, rule, _)| is_condition(rule, is_bool))
            }
            _ => false,
        }
    }

    /// What a parsed template has besides text and `{{ name }}`.
    pub(crate) fn beyond_substitution(&self, name: &str) -> Option<&'static str> {
        beyond_substitution(&self.0.get_template(name).ok()?.ast)
    }

    pub(crate) fn evaluate(&self, name: &str, context: &Context) -> Result<String, String> {
        self.0.render(name, context).map_err(|e| innermost(&e))
    }
}

fn is_condition(expr: &Expr, is_bool: &dyn Fn(&str) -> bool) -> bool {
    if !expr.filters.is_empty() {
        return false;
    }
    match &expr.val {
        ExprVal::Logic(logic) => match logic.operator {
            LogicOperator::And | LogicOperator::Or => {
                is_condition(&logic.lhs, is_bool) && is_condition(&logic.rhs, is_bool)
            }
            _ => true,
        },
        ExprVal::Test(_) | ExprVal::In(_) | ExprVal::Bool(_) => true,
        ExprVal::Ident(name) => is_bool(name),
        _ => false,
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

/// `min(a=.., b=.., ..)`: the least of its arguments, whatever they are called.
fn min(args: &HashMap<String, tera::Value>) -> tera::Result<tera::Value> {
    let numbers: Option<Vec<u64>> = args.values().map(tera::Value::as_u64).collect();
    let least = numbers.and_then(|numbers| numbers.into_iter().min());
    least
        .map(Into::into)
        .ok_or_else(|| tera::Error::msg("min(a=.., b=.., ..) takes whole numbers, at least one"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn add(body: Body<'_>) -> Result<BTreeSet<String>, String> {
        Expressions::new().add("x", body)
    }

    #[test]
    fn an_expression_has_no_loops_includes_macros_or_further_blocks() {
        for (text, words) in [
            ("{% for i in [1, 2] %}{{ i }}{% endfor %}", "has {% for %}"),
            ("{% set n = 1 %}{{ n }}", "has {% set %}"),
            ("{% include \"/etc/passwd\" %}", "has {% include %}"),
            ("{% block b %}1{% endblock %}", "has {% block %}"),
            ("{% filter upper %}1{% endfilter %}", "has {% filter %}"),
            ("{% raw %}1{% endraw %}", "has {% raw %}"),
            ("{% if n %}{% set n = 1 %}{% endif %}", "has {% set %}"),
            ("1 }}{{ 2", "is more than one expression"),
            ("m::f(a=1)", "calls a macro"),
        ] {
            let reason = add(Body::Value(text)).expect_err(text);
            assert!(reason.contains(words), "{text}: {reason}");
        }
        let reason = add(Body::Rule("n %}{% for i in n %}{% endfor %}{% if n")).expect_err("refused");
        assert!(reason.contains("is more than one condition"), "{reason}");
    }

    #[test]
    fn nothing_but_its_names_reaches_an_expression() {
        for (text, words) in [
            (
                "get_env(name='HOME')",
                "has no function `get_env`: there are ceil_div, max, min, pick, round_up",
            ),
            ("range(end=4294967295)", "has no function `range`"),
            ("now()", "has no function `now`"),
            ("max(a=get_env(name='HOME'), b=1)", "has no function `get_env`"),
            ("'a' ~ get_env(name='HOME')", "has no function `get_env`"),
            ("n in [get_env(name='HOME')]", "has no function `get_env`"),
            ("n | replace(from='1', to='11')", "has no filter `replace`"),
            ("n is matching('(a*)*')", "has no test `matching`"),
        ] {
            let reason = add(Body::Rule(text)).expect_err(text);
            assert!(reason.contains(words), "{text}: {reason}");
        }
        let names = add(Body::Rule("'a' ~ b == c and d is divisibleby(e) and f in [g, 1]")).expect("names");
        assert_eq!(names, ["b", "c", "d", "e", "f", "g"].map(str::to_owned).into());
    }

    /// The thread of a test has 2 MiB of stack, as most of a server's have.
    #[test]
    fn the_largest_that_is_let_through_is_parsed_and_evaluated_on_a_small_stack() {
        let brackets = |inner: &str| format!("{}{inner}{}", "(".repeat(9), ")".repeat(9));
        let call = |inner: &str| format!("max(a={}, b=1)", brackets(inner));
        let sum = vec!["1"; 129].join(" + ");
        for (text, value) in [
            (brackets("1"), "1"),
            (sum, "129"),
            (format!("max(a={})", vec!["2"; 60].join(" * 1 + ")), "120"),
            (
                "max(a=max(a=max(a=((((((((1)))))))), b=2), b=3), b=4)".to_owned(),
                "4",
            ),
            (call("2"), "2"),
        ] {
            let mut expressions = Expressions::new();
            expressions.add("x", Body::Value(&text)).expect("let through");
            assert_eq!(
                expressions.evaluate("x", &Context::new()).as_deref(),
                Ok(value),
                "{text}"
            );
        }
        let nested = format!("{}1{}", "{% if n > 0 %}".repeat(16), "{% endif %}".repeat(16));
        let mut expressions = Expressions::new();
        expressions.add("x", Body::Value(&nested)).expect("let through");
        let context = Context::from_value(serde_json::json!({"n": 1})).expect("context");
        assert_eq!(expressions.evaluate("x", &context).as_deref(), Ok("1"));
    }

    #[test]
    fn a_deep_or_endless_text_is_refused_before_it_is_parsed() {
        let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
        for body in [Body::Value(&deep), Body::Rule(&deep)] {
            assert!(
                add(body)
                    .expect_err("refused")
                    .contains("has more than 16384 characters")
            );
        }
        let source = format!("int x = {{{{ {deep} }}}};");
        let reason = add(Body::Source(&source)).expect_err("refused");
        assert!(
            reason.contains("has more than 12 brackets within each other"),
            "{reason}"
        );
        let deep = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(
            condition(&deep)
                .expect_err("refused")
                .contains("brackets within each other")
        );
    }

    #[test]
    fn a_family_has_a_bounded_number_of_expressions() {
        let mut expressions = Expressions::new();
        for n in 0..MAX_EXPRESSIONS {
            expressions.add(&n.to_string(), Body::Value("1")).expect("added");
        }
        assert!(
            expressions
                .add("x", Body::Value("1"))
                .expect_err("refused")
                .contains("one expression too many")
        );
    }
}
