"""The dashboard of the example `devices`: one page that shows the fleet, and changes without a reload.

views     the application's queries, in Elasticsearch and Redis
app       the page, its data, and the changes that the daemon pushes
static/   the page itself, with its style and its script
"""
