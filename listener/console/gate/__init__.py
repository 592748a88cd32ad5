"""Who may come in at the console, and as what.

passwords.py  which passwords are taken, and how they are kept
accounts.py   who may come in
sessions.py   who is in: browsers, and programs with tokens
limits.py     how fast, and what wrong guesses cost
guesses.py    passwords are looked at
hops.py       which proxies are believed about where a request comes from
origin.py     where a request comes from, and where it may lead
cookies.py    what browsers keep for us
headers.py    what browsers are told with every answer
pages.py      the pages that need no account
oidc.py       another vouches for people (OpenID Connect)
sign_in.py    the way in and out
own_password.py  people change their own
gate.py       what every request passes
commands.py   accounts on the command line
"""
