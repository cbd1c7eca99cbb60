// Copyright (c) 2026 the exfil.guard authors
// SPDX-License-Identifier: GPL-3.0-or-later
"use strict";
(function () {
  const form = document.querySelector("form");
  const tables = Array.from(document.querySelectorAll("table[data-filter]"));
  const rows = tables.map(table => Array.from(table.tBodies[0].rows).map(row => ({
    element: row, text: row.textContent.toLowerCase(), groups: (row.dataset.groups || "").split(" "),
    state: row.dataset.state || "", verdict: row.dataset.verdict || ""})));
  function apply() {
    const words = form.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const group = form.group.value, state = form.state.value, verdict = form.verdict.value;
    tables.forEach(function (table, i) {
      let shown = 0;
      for (const row of rows[i]) {
        const match = words.every(word => row.text.includes(word)) && (!group || row.groups.includes(group)) &&
          (!state || row.state === state) && (!verdict || !row.verdict || row.verdict === verdict);
        row.element.hidden = !match;
        shown += match;
      }
      document.getElementById(table.id + "-shown").textContent = shown + " of " + rows[i].length + " shown";
    });
  }
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
})();
