"""URLs that must never be fetched: places inside, and spellings that two parsers read differently.

Each entry was a hole in some server once. The tests of the fetcher and the table of faults share
them.
"""

from __future__ import annotations

MAX_URL_CHARS = 8192  # the fetcher's own limit

FORBIDDEN_HOSTS = [
    "127.0.0.2", "127.0.0.1", "127.255.255.254", "localhost", "LOCALHOST", "[::1]",
    "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.2]", "[::ffff:7f00:2]", "[::127.0.0.2]", "0.0.0.0",
    "0.0.0.2", "[::]", "169.254.169.254", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.0.1", "100.64.0.1", "192.0.0.8", "192.0.0.192", "192.88.99.1", "198.18.0.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "100.100.100.200", "[64:ff9b::7f00:2]", "[64:ff9b:1::7f00:2]", "[64:ff9b::808:808]",
    "[2002:7f00:2::]", "[2001:0:7f00:2::]", "[fd00::1]", "[fd00:ec2::254]", "[fe80::1]",
    "[fec0::1]", "[ff02::1]", "[5f00::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]",
]  # fmt: skip

INVALID_URLS = [
    "http://0x7f.1/", "http://0x7f000002/", "http://2130706434/", "http://017700000002/",
    "http://0177.0.0.2/", "http://127.1/", "http://127.0.2/", "http://127.0.0.02/",
    "http://127.0.0.2./", "http://127.0.0.256/", "http://1.2.3.4.5/", "http://①②⑦.0.0.2/",
    "http://１２７.0.0.2/", "http://127。0。0。2/", "http://exam\u00adple.com/",
    "http://\u212aelvin.com/", "http://example.com./", "http://example..com/",
    "http://.example.com/", "http://-example.com/", "http://example.com\\@127.0.0.2/",
    "http:\\\\127.0.0.2\\", "http://user@127.0.0.2/", "http://example.com@127.0.0.2/",
    "http://user:secret@example.com/", "http://example.com%2f@127.0.0.2/",
    "http://%31%32%37.0.0.2/", "http://127.0.0.2 /", "http://127.0.0.2\r\nHost: x/",
    "http://example.com/\x00", "http://example.com/\u2028", "http://example.com/\ud800",
    " http://example.com/", "http://[::1/", "http://::1/", "http://[fe80::1%25lo]/",
    "http://[127.0.0.2]/", "http://example.com:99999/", "http://example.com:0/",
    "http://example.com:/", "http://example.com:80:80/", "http://", "http:///image",
    "http:127.0.0.2", "//127.0.0.2/", "127.0.0.2", "", "file:///etc/passwd", "ftp://127.0.0.2/",
    "gopher://127.0.0.2:70/_x", "data:image/png;base64,AAAA", "javascript:alert(1)",
    "unix:///run/x.sock", "httpſ://example.com/", "http://example.com/" + "a" * MAX_URL_CHARS,
]  # fmt: skip
