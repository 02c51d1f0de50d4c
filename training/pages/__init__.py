"""What was measured as people see it: charts, tables and sentences of the report and the terminal."""
