//! What users are promised, class by class: each names the rule that finds it. The rule's examples are found by the whole
//! engine under that name, its near misses are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use pipelock_scan::{RuleSet, Scanner};

const CLASSES: &[(&str, &[&str])] = &[
    ("Anthropic API key", &["anthropic-api-key"]),
    ("OpenAI API key", &["openai-project-key", "openai-admin-key", "openai-legacy-key"]),
    ("OpenAI service key", &["openai-service-key"]),
    ("Fireworks API key", &["fireworks-api-key"]),
    ("Google API key", &["google-api-key"]),
    ("Google OAuth client secret", &["google-oauth-client-secret"]),
    ("Stripe key", &["stripe-key"]),
    ("Stripe webhook secret", &["stripe-webhook-secret"]),
    ("GitHub token", &["github-token", "github-token-shape"]),
    ("GitHub fine-grained token", &["github-fine-grained-token"]),
    ("GitLab token", &["gitlab-token", "gitlab-other-token", "gitlab-runner-registration", "gitlab-session"]),
    ("AWS access id", &["aws-access-key", "aws-access-key-shape"]),
    ("AWS secret key", &["aws-secret-key", "aws-session-token"]),
    ("Google OAuth token", &["google-oauth-token", "google-refresh-token"]),
    ("Slack token", &["slack-token"]),
    ("Slack app token", &["slack-app-token"]),
    ("Discord bot token", &["discord-bot-token"]),
    ("Twilio API key", &["twilio-api-key"]),
    ("SendGrid API key", &["sendgrid-api-key"]),
    ("Mailgun API key", &["mailgun-api-key"]),
    ("New Relic API key", &["newrelic-key"]),
    ("Hugging Face token", &["huggingface-token"]),
    ("Databricks token", &["databricks-token"]),
    ("Replicate API token", &["replicate-api-token"]),
    ("Together AI key", &["together-api-key"]),
    ("Pinecone API key", &["pinecone-api-key"]),
    ("Groq API key", &["groq-api-key"]),
    ("xAI API key", &["xai-api-key"]),
    ("DigitalOcean token", &["digitalocean-token"]),
    ("HashiCorp Vault token", &["vault-token"]),
    ("Vercel token", &["vercel-token"]),
    ("Supabase service key", &["supabase-secret-key"]),
    ("npm token", &["npm-token", "npm-token-shape"]),
    ("PyPI token", &["pypi-token"]),
    ("Linear API key", &["linear-api-key"]),
    ("Notion API key", &["notion-api-key"]),
    ("Sentry auth token", &["sentry-token"]),
    ("Private key", &["private-key"]),
    ("JWT", &["jwt"]),
    ("Bitcoin WIF key", &["bitcoin-wif"]),
    ("Extended private key", &["extended-private-key"]),
    ("Ethereum private key", &["ethereum-private-key"]),
    ("US social security number", &["us-ssn"]),
    ("Google OAuth client id", &["google-oauth-client-id"]),
    ("Credential in a URL", &["credential-in-url"]),
    ("Secret in an environment variable", &["environment-secret"]),
    ("Credit card number", &["credit-card"]),
    ("IBAN", &["iban"]),
    ("Azure", &["azure-sas", "azure-storage-key", "azure-client-secret", "azure-openai-key", "azure-devops-pat"]),
    ("GCP service account", &["gcp-service-account"]),
    ("More AI services", &["openrouter-key", "mistral-api-key", "cohere-api-key", "perplexity-api-key", "sk-api-key"]),
    ("Cloudflare", &["cloudflare-api-token", "cloudflare-global-key", "cloudflare-origin-ca-key"]),
    ("Hosting", &["heroku-api-key", "fly-token", "netlify-token"]),
    ("Shops and payment", &["shopify-token", "square-token", "paypal-access-token", "paypal-client-secret"]),
    ("Atlassian and Bitbucket", &["atlassian-api-token", "bitbucket-app-password"]),
    ("Docker Hub, Terraform Cloud", &["dockerhub-token", "terraform-cloud-token"]),
    ("Observability", &["datadog-api-key", "datadog-app-key", "grafana-token"]),
    ("Code analysis", &["snyk-token", "sonar-token"]),
    ("Telegram", &["telegram-bot-token"]),
    ("Age and PuTTY keys", &["age-secret-key", "putty-private-key"]),
    ("Addresses with credentials", &["url-basic-auth", "database-url"]),
    (
        "Kubernetes, registries' and hosts' files",
        &["kubeconfig-key", "kubeconfig-token", "npmrc-auth", "netrc-password", "pypirc-password"],
    ),
    (
        "Postman, Airtable, Figma, Doppler, 1Password",
        &["postman-key", "airtable-token", "figma-token", "doppler-token", "onepassword-token"],
    ),
    ("Solana keys", &["solana-keypair"]),
    ("Developer services", &["clojars-token", "octopus-deploy-key", "openshift-token", "harness-token", "maxmind-key"]),
];

#[test]
fn every_class_has_a_rule_that_finds_it_and_leaves_near_misses() {
    let rules = RuleSet::shipped().unwrap();
    let scanner = Scanner::new(rules.clone(), &[7; 32]).unwrap();
    let mut wrong = Vec::new();
    for (class, ids) in CLASSES {
        for id in *ids {
            let Some(rule) = rules.rules().iter().find(|rule| *rule.id == **id) else {
                wrong.push(format!("{class}: there is no rule {id}"));
                continue;
            };
            let found = |text: &str| {
                let findings = scanner.scan(text.as_bytes()).unwrap();
                findings.iter().any(|one| *one.rule == **id || one.also.iter().any(|also| **also == **id))
            };
            assert!(!rule.examples.is_empty() && !rule.counter_examples.is_empty(), "{id}");
            wrong.extend(
                rule.examples.iter().filter(|text| !found(text)).map(|text| format!("{class}: {id} misses {text}")),
            );
            wrong.extend(
                rule.counter_examples
                    .iter()
                    .filter(|text| found(text))
                    .map(|text| format!("{class}: {id} finds {text}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whoever smuggles a secret may write a sample word beside it.
#[test]
fn sample_words_beside_a_secret_do_not_hide_it() {
    let scanner = Scanner::new(RuleSet::shipped().unwrap(), &[7; 32]).unwrap();
    let secrets = [
        "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",
        "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",
        "rubygems_4353c11f16288295eca3700fd04060e931aca76e01f7db27",
        "API_TOKEN=kV8wQ2zL9nT4pR6mX1cB7yD3",
    ];
    let around = [
        "{}xxxxxxxxxxxxxxxx",
        "{}EXAMPLE",
        "{}-your-key-here",
        "{}....",
        "your {} example",
        "{}placeholder",
        "{}_redacted",
    ];
    let mut missed = Vec::new();
    for secret in secrets {
        for form in around {
            let text = form.replace("{}", secret);
            if scanner.scan(text.as_bytes()).unwrap().is_empty() {
                missed.push(text);
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
