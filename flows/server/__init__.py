"""The Prefect server: listflow's side of it.

client.py       the server that a command talks to, and one that is away for a while
temporary.py    one for a command that has no other
hosting.py      a server of one's own, behind a password
here.py         that of the current folder, which a command finds by itself
beside.py       one beside a command, which ends with it
program.py      what runs in a hosted server's process
login.py        its pages, and the login form before them
reports.py      its pages of finished runs' reports
events.py       a corpus has grown
automations.py  what the server does by itself about runs that crash
deployments.py  those that name a module by a former name
"""
