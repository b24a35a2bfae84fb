"""How a run happens: command line, configuration, the Beam graph, publishing and the report."""
