"""Credentials and permissions: from a token to a `Principal`, and the record of who changed what and who was refused.

file       what it is
grant      what is given to whom, as files and claims write it
policy     roles and principals of the permissions file -> principals; what a change gives and takes
apikey     API keys: made, stored hashed, recognised
jwk        the keys of an issuer, each with the algorithms that it may be used with
jwt        JSON Web Tokens: read, and verified with such a key
keysource  where an issuer's keys come from: a file or an address, kept fresh in the background
access     all of it together: a token in, a principal out; revocation reaches who is connected
audit      the audit log
"""
