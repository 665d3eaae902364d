"""The endpoints, one file for each capability. `application.ROUTES` lists them."""
