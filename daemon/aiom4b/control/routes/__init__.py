"""What answers which path? One module a group of paths; each takes strangers' data apart and asks the service."""
