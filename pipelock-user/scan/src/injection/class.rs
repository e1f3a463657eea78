//! What an injection finding can be called: the closed sets of classes, severities and confidences. Used by the rules
//! (YAML words become these values), by findings and by whoever maps findings to policy. Promises that every word is
//! stable: it appears in evidence.

use std::fmt;

use serde::Deserialize;

/// Declares a closed set once: the enum, its stable words, the list of all values and `Display`.
macro_rules! closed_set {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $value,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$value,)+];

            /// The stable word that rules, JSON and evidence use.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$value => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }
    };
}

closed_set! {
    /// What the text tries to do to the agent that reads it.
    Class {
        /// Tells the reader to ignore the instructions it has.
        InstructionOverride = "instruction_override",
        /// Sets instructions aside without forbidding them.
        InstructionDismissal = "instruction_dismissal",
        /// Declares earlier instructions outdated, optional or void.
        InstructionDowngrade = "instruction_downgrade",
        /// Tells the reader to ignore the document it was given and to state something else.
        ContentOverride = "content_override",
        /// Announces instructions that replace the present ones.
        NewInstructions = "new_instructions",
        /// Poses as a message of the system.
        SystemOverride = "system_override",
        /// Announces a privileged mode (maintenance, developer, god).
        SystemMode = "system_mode",
        /// Gives the reader another role.
        RoleOverride = "role_override",
        /// Names a known persona or mode without limits.
        Jailbreak = "jailbreak",
        /// Commands a lasting change of behaviour.
        BehaviorOverride = "behavior_override",
        /// Puts one request above all others.
        PriorityOverride = "priority_override",
        /// Tells the reader that it has rights it does not have.
        AuthorityEscalation = "authority_escalation",
        /// The writer claims a position that must be obeyed.
        AuthorityClaim = "authority_claim",
        /// Offers a reward or a threat for compliance.
        Incentive = "incentive",
        /// An instruction that the user must not see.
        HiddenInstruction = "hidden_instruction",
        /// An instruction inside markup that is not displayed.
        HiddenMarkup = "hidden_markup",
        /// An instruction in an encoding, with the request to decode and follow it.
        EncodedPayload = "encoded_payload",
        /// An instruction cut in parts that the reader is told to join.
        PayloadSplitting = "payload_splitting",
        /// Orders a tool call.
        ToolInvocation = "tool_invocation",
        /// Orders a command to be run.
        CommandExecution = "command_execution",
        /// Asks for a password, key or token.
        CredentialSolicitation = "credential_solicitation",
        /// Asks for data about a person.
        PersonalDataSolicitation = "personal_data_solicitation",
        /// Orders a file with credentials to be read.
        CredentialPath = "credential_path",
        /// Makes credentials a condition for going on.
        AuthRequirement = "auth_requirement",
        /// Orders credentials to be handled without a word.
        SilentHandling = "silent_handling",
        /// Orders an act behind the user's back.
        CovertAction = "covert_action",
        /// Wants to be remembered in later sessions.
        MemoryPersistence = "memory_persistence",
        /// Wants one tool, source or product preferred from now on.
        PreferencePoisoning = "preference_poisoning",
        /// Markers of a chat template inside data.
        InstructionBoundary = "instruction_boundary",
        /// Asks for the system prompt.
        PromptExtraction = "prompt_extraction",
        /// A story or hypothesis as a wrapper for a forbidden request.
        FictionalFraming = "fictional_framing",
        /// Dictates the form of the answer so that a refusal is not possible.
        OutputForcing = "output_forcing",
        /// Wants something put into, or done to, the reader's answer.
        ResponseManipulation = "response_manipulation",
        /// Wants code planted in the reader's work.
        CodePlanting = "code_planting",
        /// Turns of a conversation that never took place.
        FabricatedDialogue = "fabricated_dialogue",
        /// One token over and over.
        TokenFlooding = "token_flooding",
        /// A tool description that gives orders.
        ToolPoisoning = "tool_poisoning",
        /// A tool description that turns the reader against other tools.
        ToolShadowing = "tool_shadowing",
        /// Routes other data through a tool's parameters.
        DataRouting = "data_routing",
        /// Orders data to be sent to an address.
        Exfiltration = "exfiltration",
        /// A markdown image or link whose address carries data.
        MarkdownExfiltration = "markdown_exfiltration",
        /// Terminal control sequences that hide or replace text.
        TerminalEscape = "terminal_escape",
        /// Text in characters that are not displayed.
        InvisibleText = "invisible_text",
        /// Words that known jailbreak prompts use as switches.
        MetaCommand = "meta_command",
        /// A warning about an account with a link to follow.
        PhishingLure = "phishing_lure",
    }
}

closed_set! {
    /// How much harm a true finding means.
    Severity {
        /// An attack whose success hands over the agent or its secrets.
        Critical = "critical",
        /// An attack that changes what the agent does.
        High = "high",
        /// An attempt that needs more than itself to do harm.
        Medium = "medium",
        /// Worth a note.
        Low = "low",
    }
}

closed_set! {
    /// How sure a finding of this rule is.
    Confidence {
        /// Wrong in one of some thousand documents at most.
        High = "high",
        /// Wrong now and then on text about the subject.
        Medium = "medium",
        /// A hint.
        Low = "low",
    }
}
