"""Pushes the changes of documents to clients, from the documents topic of a read model.

change         one write, parsed and encoded once for all clients
filters        which changes a client wants
cursor         the position of a client, as the id of an event
versions       detects late writes of older versions
mailbox        what waits for one client: at most one change for each key
subscription   one client: filter, mailbox, position
feed           all clients of one topic; the last changes for clients that resume
               -- no I/O up to here --
follower       reads the topic once for all clients, on a thread
catch_up       reads what one client missed
hub            opens feeds, limits clients, ends streams
stream         the messages of one client; server-sent events and WebSocket
"""
