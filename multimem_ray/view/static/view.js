"use strict";
// What htmx leaves to do: the window for one sample, keys, and errors in words.
const dialog = document.querySelector("#sample");
const message = document.querySelector("#message");
const links = () => [...document.querySelectorAll(".samples th.name a")];
let row = -1;

const focus = (place) => {
  const all = links();
  if (!all.length) return;
  row = Math.min(Math.max(place, 0), all.length - 1);
  all[row].focus();
};

document.body.addEventListener("htmx:afterSwap", (event) => {
  message.textContent = "";
  if (event.detail.target.id === "sample-body" && !dialog.open) dialog.showModal();
  if (event.detail.target.id === "list") row = -1;
});
document.body.addEventListener("htmx:responseError", (event) => {
  message.textContent = event.detail.xhr.responseText.slice(0, 600);
});
document.body.addEventListener("htmx:sendError", () => {
  message.textContent = "The server does not answer any more; is `multimem view` still running?";
});
// What was picked in the window is ticked in the list as well.
document.body.addEventListener("change", (event) => {
  const given = event.target.getAttribute("hx-vals");
  if (event.target.name !== "picked" || given === null) return;
  for (const box of document.querySelectorAll("input[type=checkbox][name=picked]")) {
    if (box.getAttribute("hx-vals") === given) box.checked = event.target.checked;
  }
});
document.addEventListener("focusin", (event) => {
  const place = links().findIndex((link) => link.closest("tr").contains(event.target));
  if (place >= 0) row = place;
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox]), select, textarea")) return;
  const tick = () => (dialog.open ? dialog : links()[row]?.closest("tr"))?.querySelector("[name=picked]")?.click();
  const look = (step) => {
    focus(row + step);
    if (dialog.open) links()[row]?.click();
  };
  const page = (key) => document.querySelector(`.bar a[data-key=${key}]`)?.click();
  const keys = {
    j: () => look(1),
    k: () => look(-1),
    x: tick,
    n: () => page("n"),
    p: () => page("p"),
    "/": () => document.querySelector("[name=text]").focus(),
  };
  if (keys[event.key] === undefined) return;
  event.preventDefault();
  keys[event.key]();
});
// On a narrow screen the samples come first.
if (window.matchMedia("(max-width: 800px)").matches) document.querySelector(".filters").open = false;
