"""Certificates that sign themselves."""

import subprocess
from pathlib import Path


def certify(folder: Path, name: str = "certificate", *options: str) -> tuple[Path, Path]:
    """One for 127.0.0.1 and its key, which is plain unless the options say otherwise."""
    path, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += [*(options or ["-nodes"]), "-keyout", str(key), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path, key
