//! `pipelock ca`: the authority that TLS is opened with, for whoever has to be told to trust it.

use std::path::{Path, PathBuf};

use super::{Failure, keys, output};
use crate::app::tls::{authority, authority_file};
use crate::app::{TrustFiles, make_folders};
use crate::proxy::Trust;

/// The name of the file with the variables.
const VARIABLES: &str = "trust.env";

/// Print the certificate of the authority that TLS is opened with.
///
/// The certificate goes to stdout as PEM, what it is and where it is kept to stderr. It is made when there is none yet. `run`
/// tells the command's programs by itself whom to trust; under `attach`, and for containers, write the files with --export and
/// set the variables where the agent is started. The private key never leaves its place.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sudo pipelock ca > /usr/local/share/ca-certificates/pipelock.crt && update-ca-certificates\n  \
                        sudo pipelock ca --policy p.yaml --export /opt/pipelock-trust\n    \
                        then, in a CI step:     cat /opt/pipelock-trust/trust.env >> \"$GITHUB_ENV\"\n    \
                        in a container:         docker run -v /opt/pipelock-trust:/opt/pipelock-trust:ro --env-file /opt/pipelock-trust/trust.env …\n    \
                        in a shell:             eval \"$(sudo pipelock ca --export /opt/pipelock-trust --shell)\""
)]
pub(super) struct Args {
    /// The policy, which may name an authority (tls.ca_cert) and more roots (tls.extra_roots).
    #[arg(long, short, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write bundle.pem (the system's roots and ours), added.pem (ours alone), bundle.p12 (for Java) and trust.env (the
    /// variables that name them, one NAME=VALUE a line) into this folder.
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// Print the variables as commands for a shell, and not the certificate.
    #[arg(long, requires = "export")]
    shell: bool,
}

pub(super) fn ca(args: &Args) -> Result<u8, Failure> {
    let policy = keys::policy(args.policy.as_deref(), true)?;
    let ca = authority(&policy)?;
    output::note(&format!("SHA-256 {}, in {}", ca.fingerprint(), authority_file(&policy).display()));
    let variables = match &args.export {
        None => Vec::new(),
        Some(folder) => export(folder, &Trust::gather(&policy, &ca)?)?,
    };
    if args.shell {
        for (name, value) in variables {
            output::line(&format!("export {name}='{}'", value.replace('\'', "'\\''")));
        }
    } else {
        output::line(ca.pem().trim_end());
    }
    Ok(0)
}

/// Writes the files; the variables that name them.
fn export(folder: &Path, trust: &Trust) -> Result<Vec<(&'static str, String)>, Failure> {
    let failed = |error| format!("{}: {error}", folder.display());
    let folder = std::path::absolute(folder)?;
    // Folders of ours are for all to read, as what is in them; those that were there stay as they are.
    let made = make_folders(&folder, 0o755).map_err(failed)?;
    let files = TrustFiles::write(made, &folder, trust).map_err(failed)?;
    let text = |(name, value): (&'static str, std::ffi::OsString)| match value.into_string() {
        Ok(value) if !value.contains('\n') => Ok((name, value)),
        _ => Err(Failure::usage("the folder's name cannot be put into a variable; choose another")),
    };
    let variables: Vec<_> = files.variables().into_iter().map(text).collect::<Result<_, _>>()?;
    let lines: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    files.put(VARIABLES, lines.as_bytes()).map_err(failed)?;
    output::note(&format!("wrote bundle.pem, added.pem, bundle.p12 and {VARIABLES} to {}", folder.display()));
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::policy::Policy;
    use crate::proxy::CertificateAuthority;

    #[test]
    fn the_variables_are_for_all_to_read_and_written_through_no_link() {
        let ca = CertificateAuthority::for_now().expect("an authority");
        let trust = Trust::gather(&Policy::deny_all(), &ca).expect("gathered");
        let above = tempfile::tempdir().expect("a folder");
        let (victim, folder) = (above.path().join("victim"), above.path().join("new").join("trust"));
        let file = folder.join(VARIABLES);
        std::fs::write(&victim, "as it was").expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        export(&folder, &trust).expect("exported");
        assert!(std::fs::read_to_string(&file).expect("read").contains("SSL_CERT_FILE="));
        assert_eq!([mode(&folder), mode(folder.parent().expect("one")), mode(&file)], [0o755, 0o755, 0o644]);
        std::fs::remove_file(&file).expect("removed");
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("closed");
        symlink(&victim, &file).expect("a link");
        export(&folder, &trust).expect("exported");
        assert_eq!(std::fs::read_to_string(&victim).expect("read"), "as it was");
        assert!(std::fs::symlink_metadata(&file).expect("there").is_file());
        assert_eq!(mode(&folder), 0o700, "a folder that was there stays as it is");
    }
}
