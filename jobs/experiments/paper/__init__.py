"""The tables of the papers, on data of your own or made for it."""
