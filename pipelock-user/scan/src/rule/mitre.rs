//! MITRE ids for rules that name none of their own, by class. Called by `raw`, `concept` and `builtin`.
//!
//! Sources: MITRE ATT&CK Enterprise v16 (attack.mitre.org): T1027 Obfuscated Files or Information, T1030 Data Transfer Size
//! Limits, T1132 Data Encoding, T1552.001 Credentials In Files, T1552.004
//! Private Keys, T1567 Exfiltration Over Web Service; MITRE ATLAS (atlas.mitre.org): AML.T0051
//! LLM Prompt Injection, AML.T0053 LLM Plugin Compromise, AML.T0054 LLM Jailbreak, AML.T0056 LLM Meta Prompt Extraction,
//! AML.T0057 LLM Data Leakage, AML.T0068 LLM Prompt Obfuscation, AML.T0080 AI Agent Context Poisoning.

/// ATT&CK and ATLAS ids of a class of findings. An unknown class of injections is prompt injection: bundles may bring some.
pub(crate) fn of_class(class: &str) -> (Vec<String>, Vec<String>) {
    let (attack, atlas) = match class {
        "credential" => ("T1552.001", ""),
        "private_key" => ("T1552.004", ""),
        "crypto" => ("T1552.004", ""),
        "financial" | "personal" | "context" => ("T1567", "AML.T0057"),
        "entropy" => ("T1132", ""),
        "session" => ("T1030", ""),
        "budget" => ("T1027", ""),
        "jailbreak" | "fictional_framing" | "meta_command" | "output_forcing" => ("", "AML.T0054"),
        "tool_invocation" | "tool_poisoning" | "tool_shadowing" => ("", "AML.T0053"),
        "prompt_extraction" => ("", "AML.T0056"),
        "credential_solicitation" | "personal_data_solicitation" | "data_routing" => ("", "AML.T0057"),
        "exfiltration" | "markdown_exfiltration" => ("T1567", "AML.T0057"),
        "invisible_text" | "hidden_markup" | "encoded_payload" | "payload_splitting" => ("T1027", "AML.T0068"),
        "memory_persistence" | "preference_poisoning" => ("", "AML.T0080"),
        _ => ("", "AML.T0051"),
    };
    let list = |id: &str| if id.is_empty() { Vec::new() } else { vec![id.to_owned()] };
    (list(attack), list(atlas))
}

/// The ids a rule names, or those of its class when it names none.
pub(crate) fn or_of_class(attack: Vec<String>, atlas: Vec<String>, class: &str) -> (Vec<String>, Vec<String>) {
    if attack.is_empty() && atlas.is_empty() { of_class(class) } else { (attack, atlas) }
}
