//! Which settings are in force, and which file is not obeyed.

use super::Fact;
use crate::engine::config::{Config, ConfigError};

/// Of a config file that no other verb passes over.
pub(super) fn fact(config: &Config) -> Option<Fact> {
    let ConfigError::Foreign { path, owner } = config.refused_file()? else {
        return None;
    };
    let path = path.display();
    Some(Fact::missing(
        "config",
        format!("{path} belongs to user {owner} and is not obeyed"),
        format!("name it to obey it (--config {path}, or JITC_CONFIG), or run in another folder"),
    ))
}
