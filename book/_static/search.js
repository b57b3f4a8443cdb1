"use strict";
// The search itself is Sphinx's. It knows each page by its source; the first page has another address.
{
  const first = document.getElementById("search-results").dataset.first;
  const setIndex = Search.setIndex;
  Search.setIndex = (index) => {
    index.docnames = index.docnames.map((name) => (name === first ? "index" : name));
    setIndex(index);
  };
  // A page that was opened from a folder may not read its neighbours, so there the results have no excerpts.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}
