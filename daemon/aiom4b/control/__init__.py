"""How is the service asked and told? HTTP and JSON on its Unix socket and, where switched on, on TCP."""
