"""ADBC over TLS: with the right authority, the wrong one, the wrong password, and without TLS.

usage: flight_tls.py PORT PASSWORD AUTHORITY OTHER_AUTHORITY
"""

import sys

import adbc_driver_flightsql.dbapi as flight_sql
from adbc_driver_flightsql import DatabaseOptions

port, password, authority, other = sys.argv[1:]


def connect(uri, password, authority):
    options = {"username": "tidewater", "password": password}
    if authority:
        with open(authority) as file:
            options[DatabaseOptions.TLS_ROOT_CERTS.value] = file.read()
    with flight_sql.connect(f"{uri}:{port}", db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT sum(n) FROM generate_series(1, 1000) AS g(n)")
            return cursor.fetchone()[0]


assert connect("grpc+tls://localhost", password, authority) == 500500
for uri, wrong, by, what in [
    ("grpc+tls://localhost", "wrong", authority, "28P01"),
    ("grpc+tls://localhost", password, other, "certificate"),
    ("grpc+tls://localhost", password, None, "certificate"),
    ("grpc://localhost", password, None, ""),
]:
    try:
        connect(uri, wrong, by)
    except flight_sql.Error as e:
        assert what in str(e), f"{uri} with {by}: {e}"
    else:
        raise AssertionError(f"{uri} with {by} connected")
