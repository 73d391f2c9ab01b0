output "stores" {
  description = "Ids of the DICOM stores by name, and whether each is a source."
  value       = { for name, store in google_healthcare_dicom_store.this : name => { id = store.id, is_source = var.stores[name].is_source } }
}
