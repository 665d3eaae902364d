"""Serves the state of the daemon over HTTP. uvicorn runs the Starlette application on a thread of its own.

    server        the socket, the thread, and an orderly end
    protocol      time-outs of slow clients
    application   the table of endpoints, and the order of the checks below
    endpoint      the declaration of one endpoint
    errors        turns every exception into a response, and adds the security headers
    problem       the exception that endpoints raise, and its response
    admission     limits (limits.py), and the check of the headers Host and Origin
    tokens        who may read and write
    openapi       describes all endpoints in the form of OpenAPI
    tools         shutdown, time-outs and threads for the code of endpoints
    routes/       the endpoints, one file for each capability

To add an endpoint, write a file in `routes/` with a function `endpoints`, and add it to `application.ROUTES`. The data
of an endpoint comes from a protocol in `services.py`. The runtime implements these protocols. So this package knows
nothing about read models, Kafka, PostgreSQL or sinks.

The code of endpoints runs on the one thread of the event loop. So it

* calls blocking functions through `Tools.blocking`,
* waits through `Tools.shutdown.wait_for`, which ends when the server stops or the client goes,
* awaits something in each round of a stream. To send data to a client that has gone does not wait and does not fail.
"""
