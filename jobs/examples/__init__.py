"""Examples of your own code in an audit; the tests run them."""
