"""The patterns of formats against a validator that nobody here wrote, and against the examples of their RFCs."""

from __future__ import annotations

import base64
import re
import uuid

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexad.text.json_formats import FORMATS

RELATIVE = "g:h g ./g g/ /g //g ?y g?y #s g#s g?y#s ;x g;x . ./ .. ../g ../../g /./g g. .g ..g ./g/. g?y/../x http:g"
"""RFC 3986, 5.4. The empty one is added below."""
ABSOLUTE = "ftp://ftp.is.co.za/rfc/rfc1808.txt ldap://[2001:db8::7]/c=GB?objectClass?one mailto:John.Doe@example.com"
ABSOLUTE += (
    " news:comp.infosystems.www.servers.unix tel:+1-816-555-1212 telnet://192.0.2.16:80/ urn:oasis:names:docbook:4.1"
)
TEMPLATES = (
    "http://example.com/~{username}/ {+path:6}/here {#path,x} {?x,y,empty} {&var*} {;hello:5} {/list*,path:4} {.who}"
)
POINTERS = '/foo /foo/0 / /a~1b /c%d /e^f /g|h /i\\j /k"l /m~0n'
GOOD = {
    "uri-reference": ["", *RELATIVE.split(), *ABSOLUTE.split()],
    "iri": [*ABSOLUTE.split(), "http://ünïcode.example/ñ?q=ä#ö", "http://例え.jp/パス"],
    "iri-reference": ["", *RELATIVE.split(), "/ñ?q=ä#ö", "ünï/code"],
    "uri-template": ["", *TEMPLATES.split()],
    "json-pointer": ["", "/ ", *POINTERS.split()],
    "relative-json-pointer": ["0", "1/0", "2/highly/nested/objects", "0#", "120/foo/bar", "1#"],
    "idn-email": ["ada@example.com", "실례@실례.테스트", "jürgen@bücher.example", "a.b+c@d-e.org"],
    "idn-hostname": ["example.com", "실례.테스트", "bücher.example", "a-b.c1", "例え.jp"],
}
BAD = {
    "uri-reference": ["\\\\WINDOWS\\fileshare", "abc d", "1a:b", "#frag\\ment", "http://[::1", "a%2"],
    "iri": ["//a", "abc", "\\\\a", "http:// a", "http://2001:0db8:85a3:0000:0000:8a2e:0370:7334"],
    "iri-reference": ["\\\\WINDOWS\\filëßåré", "#ƒräg\\mênt", "a b"],
    "uri-template": ["{", "{term", "a}b", "{a b}", "{}", "{a:0}", "{a:10000}"],
    "json-pointer": ["a", "/foo/bar~", "/~2", "#", "#/a", "0"],
    "relative-json-pointer": ["", "/foo/bar", "-1/a", "01/a", "0##", "1~", "+1"],
    "idn-email": ["2962", "@a", "a@", "a@b@c", "a b@c.d", ".a@b.c"],
    "idn-hostname": ["", "-a", "a-", "a..b", ".a", "〮실례.테스트", "a_b", "xn--x", "a" * 64],
}


@pytest.mark.parametrize("name", GOOD)
def test_the_examples_of_the_rfcs(name: str) -> None:
    pattern = re.compile(FORMATS[name].replace("^", r"\A", 1).removesuffix("$") + r"\Z")
    assert [text for text in GOOD[name] if not pattern.search(text)] == []
    assert [text for text in BAD[name] if pattern.search(text)] == []


@pytest.mark.parametrize("name", GOOD)
def test_the_validator_agrees(name: str) -> None:
    validator = jsonschema_rs.validator_for({"format": name}, validate_formats=True)
    assert [text for text in GOOD[name] if not validator.is_valid(text)] == []
    assert [text for text in BAD[name] if validator.is_valid(text)] == []


def matches(name: str, text: str) -> bool:
    return re.search(FORMATS[name].removesuffix("$") + (r"\Z" if FORMATS[name] else ""), text) is not None


@given(number=st.integers(0, 2**128 - 1), version=st.integers(1, 8))
def test_a_uuid_has_its_version(number: int, version: int) -> None:
    one = uuid.UUID(int=number, version=version if version <= 5 else 4)
    text = str(one) if version <= 5 else f"{str(one)[:14]}{version}{str(one)[15:]}"
    assert [n for n in range(1, 9) if matches(f"uuid{n}", text)] == [version]
    assert matches(f"uuid{version}", text.upper()) and not matches(f"uuid{version}", text[1:])


@given(data=st.binary(max_size=20), junk=st.text("ab+/-_= ", max_size=6))
def test_base64_is_what_python_reads(data: bytes, junk: str) -> None:
    assert matches("base64", base64.b64encode(data).decode())
    assert matches("base64url", base64.urlsafe_b64encode(data).decode())
    try:
        base64.b64decode(junk, validate=True)
    except ValueError:
        assert not matches("byte", junk)
    for name in ("password", "path", "binary"):
        assert matches(name, junk)
