// Searches without a new page, so that a screen reader hears the number of results and the focus stays where it is.
// Without this script the form does the same with a new page.
"use strict";
const form = document.getElementById("search");
let latest = 0;

function settle() {
  const weight = document.getElementById("weight");
  const mode = form.querySelector("input[name=mode]:checked");
  if (weight) weight.disabled = mode.value !== "hybrid";
}

async function show(address, push) {
  const mine = ++latest;
  const status = document.getElementById("status");
  status.textContent = "Searching…";
  let page;
  try {
    const answer = await fetch(address, { headers: { accept: "text/html" } });
    page = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    if (mine === latest) status.textContent = "The server does not answer.";
    return;
  }
  if (mine !== latest) return;
  if (!page.getElementById("results")) {
    location.assign(address);
    return;
  }
  for (const id of ["results", "filters"]) {
    const old = document.getElementById(id);
    const hadFocus = old.contains(document.activeElement);
    old.replaceWith(page.getElementById(id));
    if (hadFocus) document.getElementById(id === "results" ? "main" : id).focus({ preventScroll: true });
  }
  status.textContent = page.getElementById("status").textContent.trim();
  document.title = page.title;
  if (push) history.pushState(null, "", address);
  settle();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value !== "" || name === "q") asked.append(name, value);
  show("/?" + asked, true);
});
form.addEventListener("change", settle);
document.getElementById("main").addEventListener("click", (event) => {
  const link = event.target.closest(".pager a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(link.getAttribute("href"), true);
  scrollTo(0, 0);
});
// What the address of an earlier search asked for stands in its own form.
addEventListener("popstate", () => location.reload());
settle();
