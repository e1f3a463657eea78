//! Turns the rule files under rules/ into what the library embeds: as JSON the rules with what their patterns' check
//! found; and the words of the concept scorer, folded and joined, as tables. Called by cargo.
//! Promises: what it writes is sorted, so that the same files always make the same binary; it names no folder of this
//! checkout, since two checkouts may share a build cache; a file that the library would refuse fails the build.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

#[path = "src/injection"]
#[allow(dead_code, reason = "modules of the library, of which this uses a part")]
mod injection {
    pub(crate) mod around;
    pub(crate) mod fold;
    pub(crate) mod packed;
    pub(crate) mod plan;
    pub(crate) mod tables;
    pub(crate) mod trie;
}

#[path = "src/rule/language.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of the library, of which this uses a part")]
mod language;

const LEXICON: &str = "rules/injection/lexicon";

/// What makes databases of rules: when it says something else, those that were kept are of no use.
const ENGINE: [&str; 5] = [
    "hs/src/database.rs",
    "src/engine/dialect.rs",
    "src/engine/sparse.rs",
    "src/engine/vector.rs",
    "src/rule/pattern.rs",
];

fn main() -> Result<(), Box<dyn Error>> {
    let modules = ["around", "fold", "packed", "plan", "tables", "trie"].map(|name| format!("src/injection/{name}.rs"));
    let files = ["rules", "build.rs", "src/rule/language.rs"].into_iter().chain(ENGINE);
    for path in files.chain(modules.iter().map(String::as_str)) {
        println!("cargo:rerun-if-changed={path}");
    }
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    fs::write(out.join("rules.json"), rules()?)?;
    println!("cargo:rustc-env=ENGINE_SOURCES={:016x}", hash(&ENGINE)?);
    let (concepts, words) = lexicon()?;
    fs::write(out.join("concepts.json"), concepts)?;
    fs::write(out.join("lexicon.bin"), words)?;
    Ok(())
}

/// A hash of some files (FNV-1a), the same in every checkout.
fn hash(files: &[&str]) -> Result<u64, Box<dyn Error>> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for file in files {
        fs::read(file)?.iter().for_each(|byte| hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
    Ok(hash)
}

fn rules() -> Result<String, Box<dyn Error>> {
    let mut files = Vec::new();
    collect(Path::new("rules"), &mut files)?;
    files.sort();
    let mut rules = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let mut yaml: Value =
            serde_yaml::from_str(&fs::read_to_string(&file)?).map_err(|error| format!("{name}: {error}"))?;
        let list = yaml.get_mut("rules").and_then(Value::as_array_mut).ok_or_else(|| format!("{name}: no rules"))?;
        for rule in list.drain(..) {
            let pattern = rule.get("pattern").and_then(Value::as_str).unwrap_or_default();
            let (_, longest, groups) =
                language::checked(pattern).map_err(|error| format!("{name}: {}: {error}", rule["id"]))?;
            rules.push(json!({"file": name, "longest": longest, "groups": groups, "rule": rule}));
        }
    }
    Ok(serde_json::to_string(&rules)?)
}

fn lexicon() -> Result<(String, Vec<u8>), Box<dyn Error>> {
    let read =
        |name: &str| fs::read_to_string(format!("{LEXICON}/{name}.yaml")).map_err(|error| format!("{name}: {error}"));
    let rules: Value = serde_yaml::from_str(&read("rules")?)?;
    let concepts: BTreeMap<String, Value> = serde_json::from_value(rules["concepts"].clone())?;
    let anchors = concepts.values().zip(0..).filter(|(concept, _)| concept["anchor"] == true);
    let anchors = anchors.fold(0u128, |set, (_, id)| set | 1 << id);
    let names: Vec<String> = concepts.into_keys().collect();
    let mut tags: Vec<String> = Vec::new();
    for entry in fs::read_dir(LEXICON)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        tags.extend(name.strip_suffix(".yaml").filter(|tag| *tag != "rules").map(str::to_owned));
    }
    // The order of src/injection/builtin.rs, with which a test compares.
    tags.sort_by_key(|tag| (tag != "any", tag != "en", tag.clone()));
    let texts = tags.iter().map(|tag| read(tag)).collect::<Result<Vec<_>, _>>()?;
    let languages: Vec<(&str, &str)> = tags.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    let plan = injection::plan::plan(&names, anchors, &languages).map_err(|(file, what)| format!("{file}: {what}"))?;
    Ok((serde_json::to_string(&rules)?, injection::packed::pack(&plan)?))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("lexicon") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    Ok(())
}
