"""The online server: predictions over HTTP, answered in the processes that accept the connections.

`predictor` turns a body into an answer, `endpoint` guards it (token, size, time, load), `application` is the whole HTTP interface,
`server` its processes. See docs/adr/0012-online-server.md.
"""
