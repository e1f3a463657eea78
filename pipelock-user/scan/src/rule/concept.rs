//! A rule of the concept scorer as the rule of a set, so that switches, findings and evidence treat both alike. Called by
//! [`super::set`].

use super::{Confidence, Kind, Pattern, Rule, Severity};
use crate::injection::{self, ConceptRule};

/// The same rule without a pattern: the scorer finds, the set names and switches.
pub(super) fn rule(concept: &ConceptRule) -> Rule {
    let class = concept.class.as_str();
    let (attack, atlas) = super::mitre::or_of_class(concept.attack.clone(), concept.atlas.clone(), class);
    Rule {
        id: concept.id.as_str().into(),
        name: concept.name.as_str().into(),
        kind: Kind::Injection,
        class: class.into(),
        severity: match concept.severity {
            injection::Severity::Low => Severity::Low,
            injection::Severity::Medium => Severity::Medium,
            injection::Severity::High => Severity::High,
            injection::Severity::Critical => Severity::Critical,
        },
        confidence: match concept.confidence {
            injection::Confidence::Low => Confidence::Low,
            injection::Confidence::Medium => Confidence::Medium,
            injection::Confidence::High => Confidence::High,
        },
        core: false,
        pattern: Pattern::stored("", 0, 0),
        secret: 0,
        keywords: Vec::new(),
        validator: None,
        is_of_form: false,
        entropy: None,
        attack,
        atlas,
        examples: concept.examples.clone(),
        counter_examples: concept.counter_examples.clone(),
    }
}
