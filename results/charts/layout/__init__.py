"""Where everything of a chart lies in a picture of a given width."""
