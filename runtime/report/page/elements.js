"use strict";
// Helpers of all pages. Text from the data reaches the page only through textContent and attributes, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}
function draw(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
  return element;
}
function show(id, ...children) {
  byId(id).replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

const percent = (share, digits = 1) => (100 * share).toFixed(digits) + "\u00a0%";
const whole = (n) => Math.round(n).toLocaleString("en");
const floor = (x, digits = 3) => (Math.floor(x * 10 ** digits + 1e-9) / 10 ** digits).toFixed(digits);
const plain = (x) => String(+x.toPrecision(6));
const certainty = (alpha) => {
  const text = plain(100 * (1 - alpha));
  return text !== "100" && +text <= 100 * (1 - alpha) + 1e-9 ? `${text} %` : `100 − ${plain(100 * alpha)} %`;
};

// Exports: what is on the page, as a file.
function save(name, content, type) {
  const link = make("a", { download: name, href: URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
