"""Peers for injections: reads {text} lines from the files named, prints for each peer and file how many texts it reports."""
import json, sys

def clawguard():
    from clawguard_core import scan_text
    return lambda text: scan_text(text).total_findings > 0

def prompt_shield():
    from prompt_shield import PromptScanner
    scanner = PromptScanner()
    return lambda text: scanner.scan(text).severity != "SAFE"

files = [[json.loads(line)["text"] for line in open(path)] for path in sys.argv[1:]]
for name, make in (("clawguard-core", clawguard), ("ai-injection-guard", prompt_shield)):
    try:
        found = make()
        print(name, *(sum(map(found, texts)) for texts in files))
    except Exception as error:
        print(name, "-", type(error).__name__, error)
