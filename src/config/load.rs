//! Defaults < profile < file < environment: each setting is applied by itself, so that an error names
//! what was wrong and where.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::{ConfigError, Contradiction, Origin, Setting, WITHHELD, is_secret, shown, withhold};
use super::suggest::{nearest, nearest_key};
use super::{HighVolumeConfig, Profile, check};

/// Read where no file is named, if it exists.
const DEFAULT_FILE: &str = "floodline.toml";
const PREFIX: &str = "FLOODLINE_";
/// Short forms of the keys that are set most often.
const SHORT_FORMS: [(&str, &str); 3] = [
    ("FLOODLINE_TARGET", "target.url"),
    ("FLOODLINE_DIALECT", "target.dialect"),
    ("FLOODLINE_TOKEN_ENV", "target.token_env"),
];

/// Says where calibrations are kept, which is no setting of a load.
const CACHE: &str = "FLOODLINE_CACHE";

/// This process's `FLOODLINE_*` variables but `FLOODLINE_CACHE`. One that is not Unicode is passed on with replacement
/// characters, to be refused by name.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(PREFIX) && name != CACHE)
}

impl HighVolumeConfig {
    /// Defaults, then `file` (or `floodline.toml` in the current directory where it exists), then `env`
    /// (see [`environment`]; what does not begin with `FLOODLINE_` is ignored), validated.
    ///
    /// The profile is `profile`, else `FLOODLINE_PROFILE`, else that of the file, else `quick`. The
    /// variable that the effective
    /// `target.token_env` names may itself begin with `FLOODLINE_`; where a flag names it, leave it
    /// out of `env`.
    ///
    /// # Errors
    /// Where the file cannot be read, or at the first key that is unknown, malformed, out of range
    /// or contradicts another.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        profile: Option<Profile>,
    ) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) => Some((path.to_owned(), read(path)?)),
            None => read_if_exists(Path::new(DEFAULT_FILE))?,
        };
        let env: BTreeMap<String, String> = env.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        let text = file.as_ref().map(|(path, table)| (path.as_path(), table));
        Self::from_layers(text, &env, profile)
    }

    /// The sizes of `profile` with single keys set, such as `("latency.rate", "2000")`, validated. Each value is read as the
    /// environment's would be; neither a file nor the environment is.
    ///
    /// # Errors
    /// At the first key that is unknown, malformed, out of range or contradicts another.
    pub fn with(profile: Profile, settings: &[(&str, &str)]) -> Result<Self, ConfigError> {
        let env = settings.iter().map(|(key, value)| (variable(key), (*value).to_owned())).collect();
        Self::from_layers(None, &env, Some(profile))
    }

    /// Checks every value and every pair again, after fields were set in code.
    ///
    /// # Errors
    /// At the first key that is out of range or contradicts another.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut layers = Layers::new(self.profile)?;
        for (key, value) in leaves(&to_table(self)?) {
            if layers.value(&key) != Some(&value) {
                layers.set(&key, value, Origin::Given)?;
            }
        }
        layers.finish().map(|_| ())
    }

    fn from_layers(
        file: Option<(&Path, &Table)>,
        env: &BTreeMap<String, String>,
        profile: Option<Profile>,
    ) -> Result<Self, ConfigError> {
        let of_file = file.map(|(path, table)| profile_of_file(path, table)).transpose()?.flatten();
        let of_env = env.get("FLOODLINE_PROFILE").map(|name| profile_of_env(name)).transpose()?;
        let mut layers = Layers::new(profile.or(of_env).or(of_file).unwrap_or_default())?;
        if let Some((path, table)) = file {
            layers.set_file(path, table)?;
        }
        layers.set_environment(env)?;
        layers.finish()
    }
}

/// The configuration while it is being put together.
struct Layers {
    /// All keys, as they are so far.
    table: Table,
    /// The same, parsed and checked key by key.
    config: HighVolumeConfig,
    /// Who set the keys that are no longer at their defaults.
    origins: BTreeMap<String, Origin>,
    /// All keys that there are.
    keys: Vec<String>,
}

impl Layers {
    fn new(profile: Profile) -> Result<Self, ConfigError> {
        let config = HighVolumeConfig::for_profile(profile);
        let table = to_table(&config)?;
        let keys = leaves(&table).into_iter().map(|(key, _)| key).collect();
        Ok(Self { table, config, origins: BTreeMap::new(), keys })
    }

    fn set_file(&mut self, path: &Path, table: &Table) -> Result<(), ConfigError> {
        let mut settings = Vec::new();
        self.settings_of(path, "", table, &mut settings)?;
        for (key, value) in settings {
            self.set(&key, value, Origin::File(path.to_owned()))?;
        }
        Ok(())
    }

    /// Flattens the file's tables along those of the defaults, so that a table in a value's place
    /// stays a (wrong) value.
    fn settings_of(
        &self,
        path: &Path,
        prefix: &str,
        table: &Table,
        out: &mut Vec<(String, Value)>,
    ) -> Result<(), ConfigError> {
        let origin = || Origin::File(path.to_owned());
        for (name, value) in table {
            let key = join(prefix, name);
            match (self.value(&key), value) {
                _ if key == "profile" => {}
                (None, _) => {
                    let value = (!value.is_table() && !is_secret(&key, value)).then(|| value.to_string());
                    let nearest = nearest_key(&key, &self.keys);
                    return Err(ConfigError::UnknownKey { origin: origin(), key, value, nearest });
                }
                (Some(Value::Table(_)), Value::Table(section)) => {
                    self.settings_of(path, &key, section, out)?
                }
                (Some(Value::Table(_)), other) => {
                    let (value, cause) = (shown(&key, other), format!("expected the section [{key}]"));
                    return Err(ConfigError::Invalid { origin: origin(), key, value, cause });
                }
                (Some(_), value) => out.push((key, value.clone())),
            }
        }
        Ok(())
    }

    fn set_environment(&mut self, env: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        let long: BTreeMap<String, String> =
            self.keys.iter().map(|key| (variable(key), key.clone())).collect();
        let short = SHORT_FORMS.iter().map(|(name, key)| ((*name).to_owned(), (*key).to_owned()));
        let mut known = long;
        known.extend(short);
        let mut unknown = Vec::new();
        for (name, text) in env {
            let Some(key) = known.get(name) else {
                unknown.push(name);
                continue;
            };
            if key == "profile" {
                continue;
            }
            let value =
                self.value(key).map_or_else(|| Value::String(text.clone()), |like| value_like(like, text));
            self.refuse_two_names(key, name, &value)?;
            self.set(key, value, Origin::Environment(name.clone()))?;
        }
        // Only now is it known which variable holds the token: it is no setting, whatever its name.
        let secrets = [&self.config.target.token_env, &self.config.dialect.password_env];
        match unknown.into_iter().find(|&name| !secrets.contains(&&Some(name.clone()))) {
            None => Ok(()),
            Some(name) => Err(ConfigError::UnknownKey {
                origin: Origin::Environment(name.clone()),
                key: name.clone(),
                value: None,
                nearest: nearest(name, known.keys().map(String::as_str)),
            }),
        }
    }

    /// A short and a long form of one key must agree: there is no order between them.
    fn refuse_two_names(&self, key: &str, name: &str, value: &Value) -> Result<(), ConfigError> {
        match self.origins.get(key) {
            Some(Origin::Environment(earlier)) if self.value(key) != Some(value) => {
                Err(ConfigError::Invalid {
                    origin: Origin::Environment(name.to_owned()),
                    key: key.to_owned(),
                    value: shown(key, value),
                    cause: format!("{earlier} sets it to something else"),
                })
            }
            _ => Ok(()),
        }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let (section, name) = match key.rsplit_once('.') {
            None => return self.table.get(key),
            Some((section, name)) => (section, name),
        };
        section.split('.').try_fold(&self.table, |table, part| table.get(part)?.as_table())?.get(name)
    }

    /// Sets one known key and reads the whole again, so that whatever is wrong now is wrong with this key.
    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), ConfigError> {
        let text = shown(key, &value);
        if let Some(slot) = slot(&mut self.table, key) {
            *slot = value;
        }
        match self.table.clone().try_into() {
            Ok(config) => self.config = config,
            Err(cause) => {
                let cause = cause.message().trim().to_owned();
                // serde repeats the value that it refuses.
                let cause = if text == WITHHELD { withhold(&cause) } else { cause };
                return Err(ConfigError::Invalid { origin, key: key.to_owned(), value: text, cause });
            }
        }
        self.origins.insert(key.to_owned(), origin);
        Ok(())
    }

    fn finish(self) -> Result<HighVolumeConfig, ConfigError> {
        let Some(conflict) = check::first_conflict(&self.config) else { return Ok(self.config) };
        let setting = |key: &&str| Setting {
            key: (*key).to_owned(),
            value: self.value(key).map(|value| shown(key, value)).unwrap_or_default(),
            origin: self.origins.get(*key).cloned().unwrap_or(Origin::Default),
        };
        let settings = conflict.keys.iter().map(setting).collect();
        Err(ConfigError::Contradiction(Contradiction { settings, cause: conflict.cause }))
    }
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    text.parse().map_err(|cause: toml::de::Error| {
        // The parser's own rendering quotes the line, which may hold a secret.
        let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError::Syntax { path: path.to_owned(), line, cause: cause.message().to_owned() }
    })
}

pub(super) fn read_if_exists(path: &Path) -> Result<Option<(PathBuf, Table)>, ConfigError> {
    match read(path) {
        Ok(table) => Ok(Some((path.to_owned(), table))),
        Err(ConfigError::Unreadable { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn profile_of_file(path: &Path, table: &Table) -> Result<Option<Profile>, ConfigError> {
    let Some(value) = table.get("profile") else { return Ok(None) };
    let parsed = value.as_str().unwrap_or_default().parse();
    parsed.map(Some).map_err(|cause: super::UnknownProfile| ConfigError::Invalid {
        origin: Origin::File(path.to_owned()),
        key: "profile".to_owned(),
        value: value.to_string(),
        cause: cause.to_string(),
    })
}

fn profile_of_env(name: &str) -> Result<Profile, ConfigError> {
    name.parse().map_err(|cause: super::UnknownProfile| ConfigError::Invalid {
        origin: Origin::Environment("FLOODLINE_PROFILE".to_owned()),
        key: "profile".to_owned(),
        value: Value::String(name.to_owned()).to_string(),
        cause: cause.to_string(),
    })
}

fn to_table(config: &HighVolumeConfig) -> Result<Table, ConfigError> {
    Table::try_from(config).map_err(|cause| ConfigError::NotToml { cause: cause.to_string() })
}

/// All keys with their values, by path.
pub(super) fn leaves(table: &Table) -> Vec<(String, Value)> {
    fn walk(prefix: &str, table: &Table, out: &mut Vec<(String, Value)>) {
        for (name, value) in table {
            let key = join(prefix, name);
            match value {
                Value::Table(section) => walk(&key, section, out),
                value => out.push((key, value.clone())),
            }
        }
    }
    let mut out = Vec::new();
    walk("", table, &mut out);
    out
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn slot<'t>(table: &'t mut Table, key: &str) -> Option<&'t mut Value> {
    match key.split_once('.') {
        None => table.get_mut(key),
        Some((section, rest)) => slot(table.get_mut(section)?.as_table_mut()?, rest),
    }
}

/// The variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// Reads a variable as a value of the type that the key has now; what does not fit stays text, and is
/// refused as such.
fn value_like(like: &Value, text: &str) -> Value {
    let trimmed = text.trim();
    let plain = || Value::String(text.to_owned());
    match like {
        Value::Integer(_) => trimmed.parse().map_or_else(|_| plain(), Value::Integer),
        Value::Float(_) => trimmed.parse().map_or_else(|_| plain(), Value::Float),
        Value::Boolean(_) => trimmed.parse().map_or_else(|_| plain(), Value::Boolean),
        Value::Array(items) => {
            let inner = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(trimmed);
            let like = items.first().cloned().unwrap_or_else(plain);
            let parts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
            Value::Array(parts.map(|part| value_like(&like, part)).collect())
        }
        _ => plain(),
    }
}
