"""Makes what a registry serves: packages as PyPI, npm and crates.io have them, with their shapes of links and hashes.

usage: packages.py FOLDER BASE NAME...    FOLDER gets `simple`, `packages`, `npm` and `crates`; BASE is the registry's URL.
"""
import base64, gzip, hashlib, io, json, os, platform, sys, tarfile, zipfile

folder, base, names = sys.argv[1], sys.argv[2], sys.argv[3:]
TAG = "cp%d%d" % sys.version_info[:2]
NATIVE = f"{TAG}-{TAG}-manylinux_2_17_{platform.machine()}.manylinux2014_{platform.machine()}"


def put(path, data):
    path = os.path.join(folder, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def packed(prefix, files):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size, info.mode = len(text), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def wheel(name, version, tag):
    info, out = f"{name}-{version}.dist-info/", io.BytesIO()
    about = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\nSummary: a package named {name}\n"
    files = {f"{name}.py": "ANSWER = 42\n", info + "METADATA": about,
             info + "WHEEL": "Wheel-Version: 1.0\nGenerator: e2e\nRoot-Is-Purelib: true\n" +
             "".join(f"Tag: {tag.split('-')[0]}-{tag.split('-')[1]}-{one}\n" for one in tag.split("-")[2].split("."))}
    files[info + "RECORD"] = "".join(f + ",,\n" for f in [*files, info + "RECORD"])
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, text in files.items():
            zipped.writestr(zipfile.ZipInfo(path), text, zipfile.ZIP_DEFLATED)
    return out.getvalue(), about


def python(number, name):
    links, name = [], name.replace("-", "_").lower()
    last = "py3-none-any" if number % 3 else NATIVE
    # Older versions for other machines, as an index lists them; only the last is fetched.
    for version, tag in [("0.9.1", f"cp39-cp39-macosx_11_0_arm64"), ("0.9.2", "cp310-cp310-musllinux_1_2_x86_64"), ("1.0.1", last)]:
        data, about = wheel(name, version, tag)
        digest, blake = hashlib.sha256(data).hexdigest(), hashlib.blake2b(data + name.encode(), digest_size=32).hexdigest()
        path = f"packages/{blake[:2]}/{blake[2:4]}/{blake[4:]}/{name}-{version}-{tag}.whl"
        put(path, data)
        put(path + ".metadata", about)
        core = "sha256=" + hashlib.sha256(about.encode()).hexdigest()
        links.append(f'<a href="{base}/{path}#sha256={digest}" data-requires-python="&gt;=3.7" data-dist-info-metadata="{core}" '
                     f'data-core-metadata="{core}">{name}-{version}-{tag}.whl</a><br />\n')
    put(f"simple/{name.replace('_', '-')}/index.html", "<!DOCTYPE html><html><body>\n" + "".join(links) + "</body></html>\n")


def npm(name):
    about = {"name": name, "version": "1.0.0", "main": "index.js"}
    data = packed("package/", {"package.json": json.dumps(about), "index.js": "module.exports = 42;\n"})
    path = f"npm/{name}/-/{name}-1.0.0.tgz"
    put(path, data)
    about["dist"] = {
        "tarball": f"{base}/{path}", "shasum": hashlib.sha1(data).hexdigest(),
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
        "signatures": [{"keyid": "SHA256:jl3bwswu80PjjokCgh0o2w5c2U4LhQAE57gj9cz1kzA",
                        "sig": base64.b64encode(hashlib.sha512(data + b"s").digest()).decode()}],
    }
    put(f"npm/{name}.json", json.dumps({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": about}}))


def cargo(name):
    manifest = f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2021"\n'
    data = packed(f"{name}-1.0.0/", {"Cargo.toml": manifest, "src/lib.rs": "pub const ANSWER: u32 = 42;\n"})
    put(f"crates/dl/{name}/{name}-1.0.0.crate", data)
    near = {1: "1", 2: "2", 3: "3/" + name[:1]}.get(len(name), f"{name[:2]}/{name[2:4]}")
    put(f"crates/{near}/{name}", json.dumps({
        "name": name, "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
        "cksum": hashlib.sha256(data).hexdigest()}) + "\n")


for number, name in enumerate(names):
    python(number, name)
    npm(name)
    cargo(name)
put("crates/config.json", json.dumps({"dl": base + "/crates/dl/{crate}/{crate}-{version}.crate", "api": base + "/crates"}))
put("crates/api/v1/crates/index.json", json.dumps({"crates": [], "meta": {"total": 0}}))
