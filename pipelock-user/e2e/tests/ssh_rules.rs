//! Rules for SSH with OpenSSH on both sides: who shows a pinned host key is spoken to, and of who shows another the client hears
//! nothing but why.
#![allow(clippy::expect_used, reason = "a test: what cannot be set up ends it")]

use std::process::{Command, Stdio};

use pipelock_e2e::{Explicit, HttpServer, Run, Sandbox, SshServer, need};

/// Options that make ssh ask nobody and know no files of others.
const SSH: &str = "ssh -F none -o IdentityFile=own -o UserKnownHostsFile=known -o BatchMode=yes -o LogLevel=INFO";

fn rule(port: u16, keys: &[&String]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
    format!(
        "egress: [{{destination: ssh.test, ports: [{port}], protocol: ssh, scan: false, host_keys: [{}]}}]\n\
         dns: {{hosts: {{ssh.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n",
        keys.join(", ")
    )
}

/// Runs a script as the agent, with the client's key, and the host key as known; what it says is on stdout.
fn run(server: &SshServer, policy: &str, script: &str) -> Run {
    let sandbox = Sandbox::new(policy);
    sandbox.file("key", server.key());
    sandbox.file("known", format!("[ssh.test]:{} {}", server.port(), server.host_key()));
    let script = format!("(umask 077; cat key >own); {{ {script}\n}} 2>&1");
    sandbox.run_ok(&["sh", "-c", &script])
}

fn last(run: &Run) -> (String, String) {
    let flow = run.evidence.connections().pop().expect("a connection");
    (flow.verdict, flow.reason)
}

#[test]
fn commands_and_git_go_to_who_shows_a_pinned_key() {
    need!("git", "ssh", "sshd", "ssh-keygen");
    let server = SshServer::start("");
    let repository = server.folder().join("project.git");
    let made = Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(&repository).status().expect("git");
    assert!(made.success());
    let port = server.port();
    let script = format!(
        "{SSH} -p {port} root@ssh.test 'echo hello from there; head -c 300000 /dev/zero | wc -c' </dev/null; \
         export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b.test; \
         export GIT_SSH_COMMAND='{SSH}'; git clone -q ssh://root@ssh.test:{port}{0} w; cp own known w; cd w; \
         git checkout -q -b main; git commit -q --allow-empty -m first; git push -q origin main; \
         git ls-remote origin | cut -f 2",
        repository.display()
    );
    let run = run(&server, &rule(port, &[&server.fingerprints[0]]), &script);
    assert!(run.text().contains("hello from there\n300000\n") && run.text().ends_with("refs/heads/main\n"), "{run}");
    assert!(
        run.evidence.connections().iter().all(|flow| flow.verdict == "allow" && flow.reason == "policy_allow"),
        "{run}"
    );
    assert!(
        run.evidence.receipts().iter().any(|receipt| receipt.to_string().contains("\"ssh\"")),
        "the carrier is said"
    );
}

#[test]
fn every_method_of_key_exchange_is_read() {
    need!("ssh", "sshd", "ssh-keygen");
    let methods = [
        "sntrup761x25519-sha512@openssh.com",
        "curve25519-sha256",
        "ecdh-sha2-nistp256",
        "diffie-hellman-group14-sha256",
        "diffie-hellman-group-exchange-sha256",
    ];
    let server = SshServer::start(&format!("KexAlgorithms {}", methods.join(",")));
    let (port, pins) = (server.port(), &server.fingerprints);
    let tries: String = methods
        .iter()
        .map(|method| format!("{SSH} -o KexAlgorithms={method} -p {port} root@ssh.test echo {method} </dev/null\n"))
        .collect();
    let allowed = run(&server, &rule(port, &[&pins[0]]), &tries);
    assert_eq!(allowed.text().lines().collect::<Vec<_>>(), methods, "{allowed}");
    // Pinned is the RSA key, and the client asks for the other.
    let denied = run(&server, &rule(port, &[&pins[1]]), &tries.replace('\n', " || true\n"));
    assert_eq!(denied.text().matches(&format!("showed the host key {}", pins[0])).count(), methods.len(), "{denied}");
    assert_eq!(denied.evidence.with_reason("host_key_denied").len(), methods.len(), "{denied}");
    // The keys are told apart whatever their kind.
    for (kind, pin) in [("ssh-ed25519", 0), ("rsa-sha2-512", 1), ("ecdsa-sha2-nistp256", 2)] {
        let command = format!(
            "{SSH} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o HostKeyAlgorithms={kind} -p {port} root@ssh.test echo {kind} </dev/null"
        );
        let command = command.replacen("-o UserKnownHostsFile=known ", "", 1).replacen("-o LogLevel=INFO ", "", 1);
        let run = run(&server, &rule(port, &[&pins[pin]]), &command);
        assert_eq!(run.text().trim(), kind, "{run}");
    }
}

#[test]
fn who_shows_another_key_is_not_spoken_to_and_the_client_reads_why() {
    need!("ssh", "sshd", "ssh-keygen");
    let (server, other) = (SshServer::start(""), SshServer::start(""));
    let port = server.port();
    let command = format!(
        "{SSH} -o StrictHostKeyChecking=no -p {port} root@ssh.test 'touch went-through' </dev/null; echo ended with $?"
    );
    let run = run(&server, &rule(port, &[&other.fingerprints[0]]), &command);
    let said = format!(
        "pipelock: the server showed the host key {}; if that is the right one, add it to host_keys",
        server.fingerprints[0]
    );
    assert!(run.text().contains(&said) && run.text().contains("ended with 255"), "{run}");
    assert_eq!(last(&run), ("block".to_owned(), "host_key_denied".to_owned()), "{run}");
    assert!(
        run.evidence.receipts().iter().any(|one| one.to_string().contains(&server.fingerprints[0])),
        "the receipt names the key"
    );
    assert!(!server.log().contains("Accepted") && !server.log().contains("publickey"), "{}", server.log());
}

#[test]
fn nothing_else_goes_to_such_a_destination_and_ssh_to_no_other() {
    need!("curl", "ssh", "sshd", "ssh-keygen");
    let server = SshServer::start("");
    let port = server.port();
    // Not SSH: of the request nothing arrives.
    let web = HttpServer::start("127.0.0.1:0");
    let refused = run(
        &server,
        &rule(web.port(), &[&server.fingerprints[0]]),
        &format!("curl -s http://ssh.test:{}/secret; echo $?", web.port()),
    );
    assert!(web.raw().is_empty(), "something arrived: {refused}");
    assert_eq!(last(&refused).1, "protocol_unknown", "{refused}");
    // SSH on a rule that is not for it.
    let web = rule(port, &[]).replace(", protocol: ssh, scan: false, host_keys: []", ", scan: false");
    let refused = run(&server, &web, &format!("{SSH} -p {port} root@ssh.test true </dev/null; echo $?"));
    assert!(refused.text().ends_with("255\n"), "{refused}");
    assert_eq!(last(&refused), ("block".to_owned(), "protocol_unknown".to_owned()), "{refused}");
}

#[test]
fn it_is_the_same_through_a_tunnel_of_the_explicit_proxy() {
    need!("ssh", "sshd", "ssh-keygen", "python3");
    // What ssh is told to reach the server with.
    const CONNECT: &str = "import os, socket, sys, threading\n\
        proxy, target = sys.argv[1].rsplit(':', 1), sys.argv[2]\n\
        s = socket.create_connection((proxy[0], int(proxy[1])))\n\
        s.sendall(f'CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n'.encode())\n\
        head = b''\n\
        while not head.endswith(b'\\r\\n\\r\\n'): head += s.recv(1)\n\
        def out():\n\
        \x20   while data := os.read(0, 65536): s.sendall(data)\n\
        \x20   s.shutdown(socket.SHUT_WR)\n\
        threading.Thread(target=out, daemon=True).start()\n\
        while data := s.recv(65536): os.write(1, data)\n";
    let (server, other) = (SshServer::start(""), SshServer::start(""));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("connect.py"), CONNECT).expect("write");
    let port = server.port();
    for (pin, is_pinned) in [(&server.fingerprints[0], true), (&other.fingerprints[0], false)] {
        let proxy = Explicit::start(&format!("version: \"1.0\"\n{}", rule(port, &[pin])), &[]);
        let through = format!(
            "ProxyCommand=/usr/bin/python3 {}/connect.py {} ssh.test:{port}",
            folder.path().display(),
            proxy.addr
        );
        let out = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                &through,
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-i", server.folder().join("client").to_str().expect("text"), "-p", &port.to_string()])
            .args(["root@ssh.test", "echo went through"])
            .stdin(Stdio::null())
            .output()
            .expect("ssh");
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(said.contains("went through"), is_pinned, "{said}");
        assert_eq!(said.contains("pipelock: the server showed the host key"), !is_pinned, "{said}");
        let receipts = proxy.end();
        let denied = receipts.iter().filter(|receipt| receipt["action_record"]["pattern"] == "host_key_denied").count();
        assert_eq!(denied, usize::from(!is_pinned), "{receipts:#?}");
    }
}
