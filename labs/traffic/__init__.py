"""Real clients and servers, and what became of each of their sessions.

A workload is one server process and one client process, each inside a node, that hold real connections (a ping is
answered by the server's kernel). They are commanded by JSON lines on standard input and answer by JSON lines on
standard output. Nothing here knows what a firewall is: a session only knows whom it asked, how long it waited, and how
it ended.

Kinds: sessions and short (`session_client`, `session_server`), ftp, tftp, ping and flood (`KIND_client`,
`KIND_server`).
"""
