"""Values that Spark read, in the text form in which PostgreSQL's protocol sends them."""

import json
import struct
from decimal import Decimal

from pyspark.sql import types as T


def text(value, kind):
    """None for NULL."""
    if value is None:
        return None
    if isinstance(kind, T.BooleanType):
        return "t" if value else "f"
    if isinstance(kind, (T.FloatType, T.DoubleType)):
        return number(value, single=isinstance(kind, T.FloatType))
    if isinstance(kind, T.DecimalType):
        return f"{value:.{kind.scale}f}"
    if isinstance(kind, T.BinaryType):
        return "\\x" + bytes(value).hex()
    if isinstance(kind, (T.TimestampType, T.TimestampNTZType)):
        return instant(value, " ") + ("+00" if isinstance(kind, T.TimestampType) else "")
    if isinstance(kind, T.ArrayType):
        return "{" + ",".join(element(v, kind.elementType) for v in value) + "}"
    if isinstance(kind, (T.StructType, T.MapType)):
        return as_json(value, kind)
    return str(value)


def element(value, kind):
    if value is None:
        return "NULL"
    out = text(value, kind)
    if isinstance(kind, T.ArrayType):
        return out
    quoted = out == "" or out.upper() == "NULL" or any(c in '{},"\\ \t\n\r\v\f' for c in out)
    return '"' + out.replace("\\", "\\\\").replace('"', '\\"') + '"' if quoted else out


def as_json(value, kind):
    if value is None:
        return "null"
    if isinstance(kind, T.BooleanType):
        return "true" if value else "false"
    if isinstance(kind, T.StructType):
        pairs = ((f.name, as_json(v, f.dataType)) for f, v in zip(kind.fields, value))
    elif isinstance(kind, T.MapType):
        pairs = ((text(k, kind.keyType), as_json(v, kind.valueType)) for k, v in value.items())
    elif isinstance(kind, T.ArrayType):
        return "[" + ", ".join(as_json(v, kind.elementType) for v in value) + "]"
    elif isinstance(kind, (T.TimestampType, T.TimestampNTZType)):
        return '"' + instant(value, "T") + ("+00:00" if isinstance(kind, T.TimestampType) else "") + '"'
    else:
        out = text(value, kind)
        bare = isinstance(kind, (T.IntegralType, T.FractionalType)) and out.lstrip("-") not in ("NaN", "Infinity")
        return out if bare else json.dumps(out, ensure_ascii=False)
    return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {v}" for k, v in pairs) + "}"


def instant(value, between):
    out = f"{value.year:04}-{value.month:02}-{value.day:02}{between}{value:%H:%M:%S}"
    return out + f".{value.microsecond:06}".rstrip("0") if value.microsecond else out


def number(value, single):
    """The shortest digits that read back, plain for exponents from -4 up to 15 (6 for single precision)."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    exact = Decimal(shortest(value, single)).normalize()
    sign, digits, exponent = exact.as_tuple()
    exponent += len(digits) - 1
    if -4 <= exponent < (6 if single else 15):
        return format(exact, "f")
    fraction = "." + "".join(map(str, digits[1:])) if len(digits) > 1 else ""
    return f"{'-' * sign}{digits[0]}{fraction}e{exponent:+03}"


def shortest(value, single):
    if not single:
        return repr(value)
    packed = struct.pack("f", value)
    return next(s for s in (f"{value:.{n}g}" for n in range(1, 10)) if struct.pack("f", float(s)) == packed)
