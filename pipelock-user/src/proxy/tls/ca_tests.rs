//! Authorities: made, kept, given, refused.

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

#[test]
#[allow(clippy::disallowed_methods, reason = "a test may fail when no thread can be had")]
fn one_is_made_on_first_use_and_kept_from_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("a/state");
    let makers: Vec<_> = (0..4)
        .map(|_| {
            let state = state.clone();
            std::thread::spawn(move || CertificateAuthority::kept(&state).expect("made").fingerprint())
        })
        .collect();
    let made: Vec<_> = makers.into_iter().map(|maker| maker.join().expect("no panic")).collect();
    assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    assert_eq!(CertificateAuthority::kept(&state).expect("kept").fingerprint(), made[0]);
    let names: Vec<_> =
        std::fs::read_dir(&state).expect("a folder").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names, [FILE]);
    let mode = std::fs::metadata(state.join(FILE)).expect("a file").mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(state.join(FILE), std::fs::Permissions::from_mode(0o644)).expect("chmod");
    assert!(matches!(CertificateAuthority::kept(&state), Err(CaError::Exposed(_))));
}

#[test]
#[ignore = "needs root"]
fn one_that_somebody_else_has_put_there_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    CertificateAuthority::kept(folder.path()).expect("made");
    std::os::unix::fs::chown(folder.path().join(FILE), Some(65534), None).expect("chown");
    assert!(matches!(CertificateAuthority::kept(folder.path()), Err(CaError::Foreign(_))));
}

/// Runs openssl, if there is one.
fn openssl(folder: &Path, args: &str) -> bool {
    Command::new("openssl").args(args.split(' ')).current_dir(folder).output().is_ok_and(|out| out.status.success())
}

#[test]
fn those_of_others_are_taken_with_keys_of_every_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    if !openssl(folder.path(), "version") {
        return;
    }
    for kind in ["ec -pkeyopt ec_paramgen_curve:P-256", "ec -pkeyopt ec_paramgen_curve:P-384", "rsa:2048", "ed25519"] {
        let made = format!(
            "req -x509 -newkey {kind} -nodes -days 2 -subj /CN=given -addext keyUsage=critical,keyCertSign -keyout key.pem -out cert.pem"
        );
        assert!(openssl(folder.path(), &made), "{kind}");
        let ca =
            CertificateAuthority::given(&folder.path().join("cert.pem"), &folder.path().join("key.pem")).expect(kind);
        assert!(ca.parts.is_ca && ca.parts.not_after > now(), "{kind}");
        assert_eq!(ca.sent().count(), 0, "a root is not sent");
        let leaf = super::super::leaf::Minter::new(ca.into()).expect("a minter");
        let minted = leaf.mint(&crate::flow::Host::parse("a.example").expect("a name")).expect("minted");
        std::fs::write(folder.path().join("leaf.pem"), pem::write("CERTIFICATE", &minted.cert[0])).expect("write");
        assert!(
            openssl(
                folder.path(),
                "verify -x509_strict -purpose sslserver -verify_hostname a.example -CAfile cert.pem leaf.pem"
            ),
            "{kind}"
        );
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = generate().expect("made");
    let (other, _) = generate().expect("made");
    let put = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path
    };
    let good = put("ca.pem", pem::write("CERTIFICATE", &certificate));
    let good_key = put("ca.key", pem::write("PRIVATE KEY", key.secret_der()));
    let other = put("other.pem", pem::write("CERTIFICATE", &other));
    let said = |certificate: &Path, key: &Path| {
        CertificateAuthority::given(certificate, key).expect_err("refused").to_string()
    };
    assert!(CertificateAuthority::given(&good, &good_key).is_ok());
    assert!(said(&other, &good_key).contains("does not belong to the certificate"), "{}", said(&other, &good_key));
    assert!(said(&good_key, &good_key).contains("no certificate"), "{}", said(&good_key, &good_key));
    assert!(said(&good, &good).contains("no private key"), "{}", said(&good, &good));
    let ca = CertificateAuthority::given(&good, &good_key).expect("good");
    let leaf = super::super::leaf::Minter::new(ca.into()).expect("a minter");
    let leaf = leaf.mint(&crate::flow::Host::parse("a.example").expect("a name")).expect("minted");
    let leaf = put("leaf.pem", pem::write("CERTIFICATE", &leaf.cert[0]));
    assert!(said(&leaf, &good_key).contains("not that of an authority"), "{}", said(&leaf, &good_key));
}
