// Filters and sorts the tables at once. What it does the server does too, by the same links and forms, where there is no script,
// and where a table has more rows than the page holds.
"use strict";

const pause = 250; // milliseconds between the last key and a question to the server

// addressOf returns the address of the page with what a table's filters and order are now. It leaves out what is empty.
function addressOf(sheet) {
  const url = new URL(location.href);
  for (const input of sheet.querySelectorAll('[data-filter], [name="' + sheet.dataset.sortby + '"]')) {
    if (input.value) {
      url.searchParams.set(input.name, input.value);
    } else {
      url.searchParams.delete(input.name);
    }
  }
  url.searchParams.delete("page");
  url.hash = "";
  return url;
}

// fits says whether a row has what the filters of its table ask for.
function fits(row, filters) {
  return filters.every((f) => {
    const wanted = f.value.trim();
    const has = row.dataset[f.dataset.filter];
    return f.dataset.filter === "text" ? has.toLowerCase().includes(wanted.toLowerCase()) : !wanted || has.split(" ").includes(wanted);
  });
}

function filter(sheet) {
  const filters = [...sheet.querySelectorAll("[data-filter]")];
  const rows = sheet.querySelectorAll(".item");
  let shown = 0;
  for (const row of rows) {
    row.hidden = !fits(row, filters);
    shown += !row.hidden;
  }
  const words = shown === rows.length ? shown.toLocaleString("en") : shown.toLocaleString("en") + " of " + rows.length.toLocaleString("en");
  for (const count of sheet.querySelectorAll(".count")) {
    count.textContent = words;
  }
}

// compare orders two cells as the server does: figures by value, words by their code points. Names are words.
function compare(a, b) {
  const x = a.dataset.v, y = b.dataset.v;
  const difference = x !== "" && y !== "" && a.tagName === "TD" ? Number(x) - Number(y) : NaN;
  return Number.isNaN(difference) ? (x > y) - (x < y) : difference;
}

function sort(sheet, link) {
  const heading = link.closest("th");
  const down = heading.ariaSort === "ascending";
  for (const other of heading.parentNode.cells) {
    if (other.ariaSort) {
      other.ariaSort = "none";
    }
  }
  heading.ariaSort = down ? "descending" : "ascending";
  const rows = [...sheet.querySelectorAll(".item")];
  const cell = (row) => (row.rows ? row.rows[0] : row).cells[heading.cellIndex];
  const first = (row) => (row.rows ? row.rows[0] : row).cells[0];
  const sign = down ? -1 : 1;
  rows.sort((a, b) => sign * compare(cell(a), cell(b)) || compare(first(a), first(b)));
  rows[0]?.parentNode.append(...rows);
  const key = (down ? "-" : "") + link.dataset.sort;
  const form = sheet.querySelector("form");
  let kept = form.querySelector('[name="' + sheet.dataset.sortby + '"]');
  if (!kept) {
    kept = Object.assign(document.createElement("input"), { type: "hidden", name: sheet.dataset.sortby });
    form.prepend(kept);
  }
  kept.value = key;
}

// fetched replaces a table by what the server says at an address, unless another question was asked meanwhile.
let asked = 0;
async function fetched(sheet, url) {
  const mine = ++asked;
  const response = await fetch(url);
  if (!response.ok) {
    return;
  }
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const next = page.querySelector('.sheet[data-sortby="' + sheet.dataset.sortby + '"]');
  if (mine !== asked || !next) {
    return;
  }
  sheet.querySelector("table").replaceWith(next.querySelector("table"));
  const old = sheet.querySelectorAll(".pager");
  next.querySelectorAll(".pager").forEach((pager, i) => old[i].replaceWith(pager));
}

for (const sheet of document.querySelectorAll(".sheet")) {
  const form = sheet.querySelector("form");
  const complete = sheet.dataset.complete === "true";
  let waiting;
  form.querySelector("button").hidden = true;
  const change = () => {
    history.replaceState(null, "", addressOf(sheet));
    if (complete) {
      filter(sheet);
      return;
    }
    clearTimeout(waiting);
    waiting = setTimeout(() => fetched(sheet, addressOf(sheet)), pause);
  };
  form.addEventListener("input", change);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    change();
  });
  sheet.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-sort]");
    if (!link || !complete || event.ctrlKey || event.metaKey || event.shiftKey || event.button) {
      return;
    }
    event.preventDefault();
    sort(sheet, link);
    history.replaceState(null, "", addressOf(sheet));
  });
}
