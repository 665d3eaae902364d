"use strict";

// Replaces the parts of the dashboard with what the server sends. The browser connects again by itself.

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function tile([status, count]) {
  const made = document.createElement("div");
  made.append(element("dt", status), element("dd", count));
  return made;
}

function row(order) {
  const made = document.createElement("li");
  const total = `${Number(order.total || 0).toFixed(2)} €`;
  made.append(
    element("b", `No. ${order.order_id}`), " ", element("span", order.customer.name), " ",
    element("span", order.first_item_name || "–"), " ", element("span", order.status, "status"), " ",
    element("span", total, "sum"),
  );
  return made;
}

const state = document.getElementById("state");
const source = new EventSource("/dashboard/events");
source.onopen = () => { state.textContent = "Live."; };
source.onerror = () => { state.textContent = "The connection is lost. Connecting again."; };
source.onmessage = (event) => {
  const found = JSON.parse(event.data);
  state.textContent = found.error || "Live.";
  if (found.error) return;
  document.getElementById("counts").replaceChildren(...Object.entries(found.counts).map(tile));
  document.getElementById("newest").replaceChildren(...found.orders.map(row));
};
