"""Multipart bodies."""

BOUNDARY = "seven"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def form_data(*parts: tuple[str, bytes, str | None]) -> bytes:
    """A multipart body of (name, content, file name or None for a plain field)."""
    body = b""
    for name, content, file in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
        body += f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
        body += content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()
