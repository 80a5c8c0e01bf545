//! Which settings are in force and who said them, and what is not obeyed.

use super::Fact;
use crate::engine::config::{Config, Effective};
use crate::engine::jit::Jit;

/// Of a config file that may be somebody else's word.
pub(super) fn fact(config: &Config) -> Option<Fact> {
    let passed_over = config.passed_over()?;
    let path = passed_over.path.display();
    Some(Fact::missing(
        "config",
        passed_over.to_string(),
        format!("name it (--config {path}, or JITC_CONFIG={path}), or run in another folder"),
    ))
}

/// Every setting, then the constants that are set, then variables of others.
pub(super) fn effective(jit: &Jit) -> Vec<Effective> {
    let config = jit.config();
    let mut shown = config.effective();
    let mut said: Vec<Effective> = Vec::new();
    for family in jit.registry().families() {
        let preset = config.preset(&family.preset_variables).map(|set| ("preset", set));
        let constants = family.constants.values();
        let set = constants.filter_map(|c| Some((c.name.as_str(), config.constant(&c.name, &c.variables)?)));
        for (name, setting) in preset.into_iter().chain(set) {
            let one = Effective::new(name, setting);
            if !said.contains(&one) && !shown.contains(&one) {
                said.push(one);
            }
        }
    }
    said.sort_by(|a, b| a.name.cmp(&b.name));
    let others = shown
        .iter()
        .position(|one| one.name.chars().all(|c| c.is_uppercase() || c == '_'));
    let at = others.unwrap_or(shown.len());
    shown.splice(at..at, said);
    shown
}
