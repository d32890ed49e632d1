"""The formats of JSON Schema that llguidance does not know, as patterns, and those that pydantic and OpenAPI add.

Each is from the ABNF of the RFC that JSON Schema names. Two take in less, having no pattern: internationalised names
are in letters that RFC 5892 allows wherever they stand, in labels short enough for their ASCII form.
"""

from __future__ import annotations

_ENCODED = "%[0-9A-Fa-f]{2}"
_WORD = "[0-9A-Fa-f]{1,4}"
_V6 = [f"({_WORD}:){{{n}}}(:{_WORD}){{1,{7 - n}}}" for n in range(1, 7)]
_V6 += [f"({_WORD}:){{7}}{_WORD}", f"({_WORD}:){{1,7}}:", f":((:{_WORD}){{1,7}}|:)"]
_UCS = "\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef"
_UCS += "".join(f"{chr(plane)}-{chr(plane + 0xFFFD)}" for plane in range(0x10000, 0xE0000, 0x10000))
_PRIVATE = "\ue000-\uf8ff"
_LETTERS = "a-z0-9ß-öø-ÿά-ώа-џぁ-ゔ一-龥가-힣"
_LABEL = f"([a-zA-Z0-9](-?[a-zA-Z0-9]){{0,30}}|[{_LETTERS}](-?[{_LETTERS}]){{0,10}})"
_HOST = rf"{_LABEL}(\.{_LABEL})*"
_ATOM = f"[a-zA-Z0-9!#$%&'*+/=?^_`{{|}}~{_UCS}-]+"
_POINTER = "(/([^~/]|~[01])*)*"
_VARIABLE = rf"([a-zA-Z0-9_]|{_ENCODED})(\.?([a-zA-Z0-9_]|{_ENCODED}))*(:[1-9][0-9]{{0,3}}|\*)?"


def _reference(more: str = "", private: str = "", *, relative: bool) -> str:
    """RFC 3986, appendix A; `more` are the unreserved characters that RFC 3987 adds, `private` those in a query."""
    plain = f"[a-zA-Z0-9._~!$&'()*+,;={more}-]|{_ENCODED}"
    char = f"({plain}|[:@])"
    host = rf"(\[({'|'.join(_V6)}|v[0-9A-Fa-f]+\.([a-zA-Z0-9._~!$&'()*+,;=:-])+)\]|({plain})*)"
    rooted = f"//(({plain}|:)*@)?{host}(:[0-9]*)?(/{char}*)*|/({char}+(/{char}*)*)?"
    way = f"[a-zA-Z][a-zA-Z0-9+.-]*:({rooted}|{char}+(/{char}*)*)?"
    if relative:
        way = f"({way}|({rooted}|({plain}|@)+(/{char}*)*)?)"
    return rf"^{way}(\?({char}|[/?{private}])*)?(#({char}|[/?])*)?$"


FORMATS = {
    "json-pointer": f"^{_POINTER}$",  # RFC 6901, section 3
    "relative-json-pointer": f"^(0|[1-9][0-9]*)(#|{_POINTER})$",  # draft-bhutton-relative-json-pointer-00
    "uri-reference": _reference(relative=True),
    "iri": _reference(_UCS, _PRIVATE, relative=False),
    "iri-reference": _reference(_UCS, _PRIVATE, relative=True),
    "uri-template": (  # RFC 6570, section 2
        rf"^([!#$&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~{_UCS}{_PRIVATE}]|{_ENCODED}"
        rf"|\{{[+#./;?&]?{_VARIABLE}(,{_VARIABLE})*\}})*$"
    ),
    "idn-email": rf"^{_ATOM}(\.{_ATOM})*@{_HOST}$",  # RFC 6531, section 3.3, without quoted local parts
    "idn-hostname": f"^{_HOST}$",  # RFC 5890, section 2.3.2.3
}
_HEX = "[0-9a-fA-F]"
FORMATS |= {
    f"uuid{n}": f"^{_HEX}{{8}}-{_HEX}{{4}}-{n}{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}$" for n in range(1, 9)
}
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
FORMATS |= {"base64": _BASE64, "byte": _BASE64, "base64url": _BASE64.replace("+/", "_-")}
FORMATS |= dict.fromkeys(("binary", "password", "path", "file-path", "directory-path"), "")  # any text is one
KNOWN = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", *FORMATS)
