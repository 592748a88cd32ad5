"""The audit trail: who received, sent, looked at, removed or changed what, as PS3.15 A.5 writes it.

    codes.py     the events and roles, by code
    message.py   one message, and its XML
    patient.py   whom a study is of, under a pseudonym unless the site asks for names
    people.py    who acts: at a terminal, or over the web
    tally.py     instances counted until their transfer is over
    repeats.py   alerts that come by the thousand
    writer.py    the thread that writes, and what becomes of messages that cannot be written
    lines.py     a restricted file that several processes append to
    syslog.py    from such a file to a collector of messages
    trail.py     what happens, in words; the rest of the listener knows this file only

This is the one sink that may name patients, and it does so only if MONRO_AUDIT_NAMES is set.
"""
