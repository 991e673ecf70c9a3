"""Makes a container in Azurite, with nothing but Python's own library.

usage: azure_container.py PORT ACCOUNT KEY CONTAINER
"""

import base64
import hashlib
import hmac
import sys
import urllib.request
from email.utils import formatdate

port, account, key, container = sys.argv[1:]
date, version = formatdate(usegmt=True), "2021-08-06"
headers = f"x-ms-date:{date}\nx-ms-version:{version}\n"
# Path-style addresses name the account twice: as the owner, and in the path.
resource = f"/{account}/{account}/{container}\nrestype:container"
to_sign = "PUT" + "\n" * 12 + headers + resource
signature = base64.b64encode(hmac.new(base64.b64decode(key), to_sign.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(
    f"http://127.0.0.1:{port}/{account}/{container}?restype=container",
    method="PUT",
    headers={
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {account}:{signature}",
        "Content-Length": "0",
    },
)
with urllib.request.urlopen(request) as answer:
    assert answer.status == 201, answer.status
