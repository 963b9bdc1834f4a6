"""What records say: tables, charts, one page. Reads records only and loads no model."""
