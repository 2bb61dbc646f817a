"""One file a page. A page is a function without arguments; what it shows is chosen by its query parameters."""
